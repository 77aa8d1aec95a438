"""What readers do not want to see: hosts that serve advertisements, and the boxes of consent managers.

Short on purpose: the hosts that most pages share, and the consent managers that most sites buy. `blockUrls`
and `hide` take whatever a page has of its own.
"""

from urllib.parse import urlsplit

_AD_HOSTS = frozenset(
    (
        "2mdn.net",
        "adform.net",
        "adnxs.com",
        "adsafeprotected.com",
        "adsrvr.org",
        "amazon-adsystem.com",
        "casalemedia.com",
        "connatix.com",
        "criteo.com",
        "criteo.net",
        "doubleclick.net",
        "googleadservices.com",
        "googlesyndication.com",
        "media.net",
        "moatads.com",
        "openx.net",
        "outbrain.com",
        "pubmatic.com",
        "rubiconproject.com",
        "scorecardresearch.com",
        "smartadserver.com",
        "taboola.com",
        "teads.tv",
        "yieldmo.com",
    )
)

CONSENT_BOXES = (
    "#onetrust-consent-sdk",
    "#CybotCookiebotDialog, #CybotCookiebotDialogBodyUnderlay",
    "#didomi-host",
    "#usercentrics-root, #usercentrics-cmp-ui",
    "#qc-cmp2-container, .qc-cmp2-container",
    "#truste-consent-track, .truste_overlay, .truste_box_overlay",
    "#cookie-law-info-bar, .cky-consent-container, .cky-overlay",
    "#cmplz-cookiebanner-container",
    "#BorlabsCookieBox",
    "#iubenda-cs-banner",
    "#axeptio_overlay",
    "#tarteaucitronRoot",
    ".cc-window.cc-banner, .cc-window.cc-floating",
    "[id^='sp_message_container_']",
    ".fc-consent-root",
    "#klaro .cookie-notice, #klaro .cookie-modal",
    "#ccc[slider-optout], #ccc-overlay",
    "#termly-code-snippet-support",
)


_HEAD_CHARACTERS = 1024  # of an address: its host stands there, and a page may make it megabytes long


def is_ad(url: str) -> bool:
    """By its host, or one above it. All hosts of the list have two labels."""
    try:
        host = urlsplit(url[:_HEAD_CHARACTERS]).hostname or ""
    except ValueError:
        return False
    return ".".join(host.rsplit(".", 2)[-2:]) in _AD_HOSTS
