"""What runs inside the page: function expressions, each called with one argument."""

# An adopted style sheet is not subject to the page's Content-Security-Policy, as a <style> element would be.
ADD_STYLE = """css => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(css);
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
}"""

# Is the selector one? Answers the position of the first that is not, or -1.
WRONG_SELECTOR = """selectors => selectors.findIndex(selector => {
  try { document.createDocumentFragment().querySelector(selector); return false; } catch { return true; }
})"""

# Waits for fonts and for the pictures in view (or all of them), each at most `ms`; ends animations if wished;
# hides the caret; lets one frame be drawn. Answers what was not waited for to its end, the title, and the
# page's own timings.
SETTLE = """async ({fonts, images, everywhere, freeze, ms, scripted}) => {
  const late = [];
  const within = (promise, what) => Promise.race([
    promise, new Promise(done => setTimeout(() => { late.push(what); done(); }, ms))]);
  if (scripted && fonts && document.fonts.status !== 'loaded') await within(document.fonts.ready, 'fonts');
  if (scripted && images) {
    const waits = [...document.images].filter(image => {
      if (!image.currentSrc && !image.src) return false;
      if (everywhere) return !image.complete || image.loading !== 'lazy';
      const box = image.getBoundingClientRect();
      return box.bottom > 0 && box.right > 0 && box.top < innerHeight && box.left < innerWidth;
    }).map(image => (image.complete ? Promise.resolve() : new Promise(done => {
      image.addEventListener('load', done, {once: true});
      image.addEventListener('error', done, {once: true});
    })).then(() => image.decode()).catch(() => {}));
    if (waits.length) await within(Promise.all(waits), 'images');
  }
  if (freeze) for (const animation of document.getAnimations()) {
    try {
      if (animation.effect.getComputedTiming().endTime === Infinity) animation.cancel();
      else animation.finish();
    } catch { /* an animation that can be neither ended nor undone stays as it is */ }
  }
  const still = new CSSStyleSheet();
  still.replaceSync('*, *::before, *::after { caret-color: transparent !important; }');
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, still];
  if (scripted) await new Promise(done => { requestAnimationFrame(() => done()); setTimeout(done, 500); });
  const entry = performance.getEntriesByType('navigation')[0];
  return {late, title: document.title, timings: entry && entry.responseStart > 0 ? {
    responseStart: Math.round(entry.responseStart),
    domContentLoaded: Math.round(entry.domContentLoadedEventEnd),
    load: Math.round(entry.loadEventEnd)} : {}};
}"""

# One step down; answers whether there is more below.
SCROLL_STEP = """step => {
  window.scrollTo({top: step * innerHeight, behavior: 'instant'});
  return (step + 1) * innerHeight < document.documentElement.scrollHeight;
}"""

SCROLL_BACK = "() => window.scrollTo({top: 0, left: 0, behavior: 'instant'})"

# The whole document in CSS pixels.
DOCUMENT_SIZE = """() => {
  const root = document.documentElement, body = document.body || root;
  return {
    width: Math.max(root.scrollWidth, body.scrollWidth, root.clientWidth),
    height: Math.max(root.scrollHeight, body.scrollHeight, root.clientHeight)};
}"""

# The element's box on the page in CSS pixels.
ELEMENT_BOX = """element => {
  const box = element.getBoundingClientRect();
  return {x: box.x + scrollX, y: box.y + scrollY, width: box.width, height: box.height};
}"""
