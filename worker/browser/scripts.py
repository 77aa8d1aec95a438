"""What runs inside the page: function expressions, each called with one argument."""

from worker.browser.relay import LEFT_OUT

MAX_MESSAGE = 100_000  # characters of one message to the console, or of one error
MAX_MESSAGES = 2000  # to the console, errors of scripts among them

# Runs before a page's own scripts, in each of its frames. A message of many MB holds up the browser, the
# driver and with them every other page: so it is left out here, and a short one says so. A page that gets
# around this (in a worker, or with `document.open`, which removes listeners) meets the relay.
QUIET = (
    """(() => {
  const most = <MOST>, mostMessages = <MESSAGES>, {console, Error, Proxy, Reflect, String} = globalThis;
  const sourceOf = Function.prototype.toString, apply = Reflect.apply;
  const lengthOf = value => {
    try {
      if (typeof value === 'string') return value.length;
      if (typeof value === 'function') return apply(sourceOf, value, []).length;
      if (typeof value === 'symbol') return (value.description || '').length;
      if (value instanceof Error) return String(value.stack).length + String(value.message).length;
    } catch { /* it is for the page to say what its values are */ }
    return 0;
  };
  const native = console.error.bind(console);
  const leaveOut = (kind, length) => native(`<LEFT_OUT> ${kind} ${length}`);
  let messages = 0;
  for (const name of Object.keys(console)) {
    const method = console[name];
    if (typeof method !== 'function') continue;
    console[name] = new Proxy(method, {apply(target, self, values) {
      if (++messages > mostMessages) return undefined;
      let length = 0;
      for (let index = 0; index < values.length; index++) length += lengthOf(values[index]);
      return length > most ? leaveOut(name, length) : apply(target, self, values);
    }});
  }
  const watch = (event, value) => addEventListener(event, problem => {
    const length = Math.max(lengthOf(problem.message), lengthOf(problem[value]));
    if (length <= most && ++messages <= mostMessages) return;
    problem.preventDefault();  // so that the browser does not report it
    if (length > most) leaveOut('exception', length);
  }, true);
  watch('error', 'error');
  watch('unhandledrejection', 'reason');
})()""".replace("<MOST>", str(MAX_MESSAGE))
    .replace("<MESSAGES>", str(MAX_MESSAGES + 100))
    .replace("<LEFT_OUT>", LEFT_OUT)
)

# The job's own script. Nothing that it returns is wanted, and of what it throws no more than a sentence.
RUN = """async () => {
  try {
    await (async () => {
<SCRIPT>
    })();
  } catch (error) {
    let reason = 'it threw something that is no text';
    try { reason = `${error}`.slice(0, 500); } catch { /* that it stays, then */ }
    throw reason;
  }
}"""

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

# Ends each animation, or undoes one that has no end.
FREEZE = """() => {
  for (const animation of document.getAnimations()) {
    try {
      if (animation.effect.getComputedTiming().endTime === Infinity) animation.cancel();
      else animation.finish();
    } catch { /* an animation that can be neither ended nor undone stays as it is */ }
  }
}"""

# Waits for fonts and for the pictures in view (or all of them), each at most `ms`; ends animations if wished;
# hides the caret. It waits for no frame: taking the picture draws one. Answers what was not waited for to its
# end, the title, and the page's own timings. Where a page has put something of its own (a form called
# `fonts`, a picture called `images`) in the place of what is needed, that part is left.
SETTLE = """async ({fonts, images, everywhere, freeze, ms, scripted}) => {
  const late = [];
  const attempt = async (what, work) => { try { return await work(); } catch { if (what) late.push(what); } };
  const within = (promise, what) => Promise.race([
    promise, new Promise(done => setTimeout(() => { late.push(what); done(); }, ms))]);
  if (scripted && fonts) await attempt('fonts', async () => {
    if (document.fonts.status !== 'loaded') await within(document.fonts.ready, 'fonts');
  });
  if (scripted && images) await attempt('images', async () => {
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
  });
  if (freeze) await attempt('animations', async () => (%s)());
  await attempt('', async () => {
    // Only where there is a caret: a rule for everything makes the browser style the whole page anew.
    const hide = () => {
      const still = new CSSStyleSheet();
      still.replaceSync('*, *::before, *::after { caret-color: transparent !important; }');
      document.adoptedStyleSheets = [...document.adoptedStyleSheets, still];
    };
    if (document.activeElement && document.activeElement !== document.body) hide();
    else document.addEventListener('focusin', hide, {once: true});  // `autofocus` takes effect in a frame
  });
  const entry = await attempt('', async () => performance.getEntriesByType('navigation')[0]);
  const title = typeof document.title === 'string' ? document.title.slice(0, 2000) : '';
  return {late, title, timings: entry && entry.responseStart > 0 ? {
    responseStart: Math.round(entry.responseStart),
    domContentLoaded: Math.round(entry.domContentLoadedEventEnd),
    load: Math.round(entry.loadEventEnd)} : {}};
}""".replace("%s", FREEZE)

# Many an application scrolls a box that fills its window. The tallest such box, and all around it, gets the
# room that it needs, so that the page itself is as high as its content.
UNROLL = """() => {
  if (document.documentElement.scrollHeight > innerHeight + 1) return;
  let tallest = null;
  for (const box of document.querySelectorAll('body, body *')) {
    const fills = box.clientHeight >= innerHeight / 2 && box.clientWidth >= innerWidth / 2;
    if (!fills || box.scrollHeight <= box.clientHeight + 1) continue;
    if (tallest && tallest.scrollHeight >= box.scrollHeight) continue;
    if (/auto|scroll|overlay/.test(getComputedStyle(box).overflowY)) tallest = box;
  }
  const room = {height: 'auto', 'max-height': 'none', bottom: 'auto', overflow: 'visible'};
  for (let box = tallest; box; box = box.parentElement) {
    const fixed = getComputedStyle(box).position === 'fixed' ? {position: 'absolute'} : {};
    for (const [name, value] of Object.entries({...room, ...fixed})) {
      box.style.setProperty(name, value, 'important');
    }
  }
}"""

# One step down; answers whether there is more below.
SCROLL_STEP = """step => {
  window.scrollTo({top: step * innerHeight, behavior: 'instant'});
  return (step + 1) * innerHeight < document.documentElement.scrollHeight;
}"""

SCROLL_BACK = "() => window.scrollTo({top: 0, left: 0, behavior: 'instant'})"

# The whole document, and where on it the view is, in CSS pixels.
DOCUMENT = """() => {
  const root = document.documentElement, body = document.body || root;
  return {
    x: scrollX, y: scrollY,
    width: Math.max(root.scrollWidth, body.scrollWidth, root.clientWidth),
    height: Math.max(root.scrollHeight, body.scrollHeight, root.clientHeight)};
}"""

# Brings the element into view; answers its box on the page in CSS pixels, and the page.
ELEMENT = """element => {
  element.scrollIntoViewIfNeeded();
  const box = element.getBoundingClientRect();
  return {
    box: {x: box.x + scrollX, y: box.y + scrollY, width: box.width, height: box.height},
    page: (%s)()};
}""".replace("%s", DOCUMENT)

SCROLL_TO = "element => element.scrollIntoView({block: 'start', inline: 'nearest', behavior: 'instant'})"

# Covers what the selectors find with a plain colour, above everything else. Called again, it covers anew.
# Answers the position of the first that is no selector, or -1.
MASK = """selectors => {
  document.getElementById('sidejob-mask')?.remove();
  const cover = document.createElement('sidejob-mask');
  cover.id = 'sidejob-mask';
  cover.style.cssText = 'all: initial; position: absolute; left: 0; top: 0; width: 0; height: 0;'
    + ' z-index: 2147483647';
  for (const [index, selector] of selectors.entries()) {
    let found;
    try { found = document.querySelectorAll(selector); } catch { return index; }
    for (const element of found) {
      const box = element.getBoundingClientRect(), part = document.createElement('div');
      part.style.cssText = `position: absolute; background: #ff00ff; left: ${box.x + scrollX}px;`
        + ` top: ${box.y + scrollY}px; width: ${box.width}px; height: ${box.height}px`;
      cover.append(part);
    }
  }
  document.documentElement.append(cover);
  const home = cover.getBoundingClientRect();
  cover.style.left = `${-home.x - scrollX}px`;
  cover.style.top = `${-home.y - scrollY}px`;
  return -1;
}"""

# What an element, or the whole document, says: HTML, text and what is for Markdown (`readable`: without what
# is not read) only where they are among `parts`. More than `most` characters are answered with `tooLarge`;
# `readable` has one more than `mostReadable` then.
READ = """(root, {most, mostReadable, parts}) => {
  const whole = root === document.documentElement, answer = {};
  if (parts.includes('html')) {
    const type = whole && document.doctype ? new XMLSerializer().serializeToString(document.doctype) : '';
    answer.html = type + root.outerHTML;
    if (answer.html.length > most) return {tooLarge: true};
  }
  if (parts.includes('text')) {
    answer.text = root.innerText || root.textContent || '';
    if (answer.text.length > most) return {tooLarge: true};
  }
  const absolute = value => {
    try { value = new URL(value, document.baseURI).href; } catch { /* as it is, then */ }
    return value.slice(0, 8192);
  };
  if (parts.includes('markdown')) {
    const copy = (whole ? document.body || root : root).cloneNode(true);
    const unread = 'script, style, noscript, template, svg, canvas, iframe, object, head, link, meta';
    for (const element of copy.querySelectorAll(unread)) element.remove();
    for (const link of copy.querySelectorAll('a[href]')) {
      link.setAttribute('href', absolute(link.getAttribute('href')));
    }
    for (const image of copy.querySelectorAll('img[src]')) {
      const source = absolute(image.getAttribute('src'));
      if (source.startsWith('data:')) image.removeAttribute('src'); else image.setAttribute('src', source);
    }
    answer.readable = copy.outerHTML.slice(0, mostReadable + 1);
  }
  const seen = new Set(), links = [];
  let left = most / 4;
  for (const link of root.querySelectorAll('a[href], area[href]')) {
    const url = absolute(link.getAttribute('href'));
    if (seen.has(url)) continue;
    const text = (link.innerText || link.getAttribute('alt') || '').trim().slice(0, 500);
    const rel = (link.getAttribute('rel') || '').slice(0, 500);
    left -= url.length + text.length + rel.length;
    if (links.length >= 10000 || left < 0) break;
    seen.add(url);
    links.push({url, text, rel});
  }
  const short = value => (typeof value === 'string' ? value.trim().slice(0, 10000) : '') || null;
  const named = (...names) => {
    for (const name of names) {
      const wished = `meta[name="${name}" i], meta[property="${name}" i]`;
      const found = short(document.querySelector(wished)?.content);
      if (found) return found;
    }
    return null;
  };
  const linked = rel => {
    const found = document.querySelector(`link[rel~="${rel}" i][href]`)?.getAttribute('href');
    return found ? absolute(found) : null;
  };
  const image = named('og:image', 'twitter:image');
  const metadata = {
    title: short(document.title), description: named('description', 'og:description', 'twitter:description'),
    language: short(document.documentElement.lang) || named('language'),
    author: named('author', 'article:author'),
    siteName: named('og:site_name', 'application-name'), type: named('og:type'),
    published: named('article:published_time', 'date'), keywords: named('keywords'), robots: named('robots'),
    image: image && absolute(image), canonical: linked('canonical'), icon: linked('icon'),
    charset: short(document.characterSet),
  };
  return {...answer, links, metadata};
}"""

READ_ALL = f"options => ({READ})(document.documentElement, options)"
