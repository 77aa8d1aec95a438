"""`browser.screenshot`: one picture of a page, or several of the same load."""

from worker.browser import images
from worker.browser.budget import Budget
from worker.browser.capture import Picture, take
from worker.browser.options.screenshot import PictureOptions, ScreenshotOptions, ShotOptions
from worker.browser.visit import Visit
from worker.browser.work import Kind, Product
from worker.handlers import File

_CAPTURE_SECONDS = 30.0  # each
_SELECTOR_SECONDS = 10.0


async def _produce(visit: Visit, options: ScreenshotOptions, budget: Budget) -> Product:
    files, pictures = [], []
    for wished in options.pictures:
        if isinstance(wished, ShotOptions):
            await _change(visit, options, wished)
        async with budget.stage(
            "capture", _CAPTURE_SECONDS, "page_hung", "The page does not let itself be drawn."
        ):
            picture = await take(visit, options, wished, budget.left(_SELECTOR_SECONDS))
        visit.watch.verify()
        files.append(_file(wished, picture))
        pictures.append(picture)
    facts = {"truncated": any(picture.truncated for picture in pictures)}
    return Product(facts, tuple(files))


async def _change(visit: Visit, options: ScreenshotOptions, shot: ShotOptions) -> None:
    """Another size or look of the same page; what the last shot chose does not stay."""
    view = shot.viewport or options.viewport
    size = view.model_dump() if view is not None else visit.view
    if visit.page.viewport_size != size:
        await visit.page.set_viewport_size(size)  # type: ignore[arg-type]
    await visit.page.emulate_media(
        color_scheme=shot.color_scheme or options.color_scheme, media=shot.media or options.media
    )
    await visit.settling.rest(everywhere=shot.whole)


def _file(wished: PictureOptions, picture: Picture) -> File:
    return File(wished.file_name(), images.MIMES[wished.format], picture.data, picture.width, picture.height)


SCREENSHOT = Kind(
    "screenshot",
    ScreenshotOptions,
    _produce,
    lambda options: options.scrolls,
    lambda options: any(picture.whole for picture in options.pictures),
    drawn=True,
)
