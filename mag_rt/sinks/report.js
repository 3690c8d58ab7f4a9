"use strict";
(() => {
  const find = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const jpeg = (base64) => "data:image/jpeg;base64," + base64;
  const svg = (tag, attributes = {}, ...children) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  /* The pictures lie behind this script in elements of their own and are read when they are needed. */
  async function picture(number) {
    let element;
    while (!(element = document.getElementById("picture-" + number)) && document.readyState === "loading")
      await new Promise((done) => setTimeout(done, 50));
    return JSON.parse(element.textContent);
  }

  /* Heat: each level of the mask has a colour, and an opacity that depends on where the slider is. */
  const { heat, strongest, outline_width: OUTLINE_WIDTH } = JSON.parse(find("#constants").textContent);

  /* The mask's pixels; null where there is no mask, or where the browser gives a page made-up pixels so that nobody can
     be recognised by them. The black row below the mask tells. */
  async function levelsOf(detail) {
    if (!detail.mask) return null;
    const image = new Image();
    image.src = jpeg(detail.mask);
    await image.decode();
    const [width, height] = [image.naturalWidth, image.naturalHeight];
    const context = make("canvas", { width, height: height + 1 }).getContext("2d", { willReadFrequently: true });
    context.fillRect(0, 0, width, height + 1);
    context.drawImage(image, 0, 0);
    const black = context.getImageData(0, height, width, 1).data;
    const honest = black.every((value, at) => Math.abs(value - (at % 4 === 3 ? 255 : 0)) < 16);
    return honest ? context.getImageData(0, 0, width, height) : null;
  }

  /* fade: 0 the photo alone, 0.5 as in overlays/, 1 the heat map alone. */
  function paint(canvas, levels, fade) {
    const over = Math.min(1, 2 * fade) * strongest;
    const whole = Math.max(0, 2 * fade - 1);
    const painted = new ImageData(levels.width, levels.height);
    for (let at = 0; at < painted.data.length; at += 4) {
      const level = levels.data[at];
      const [red, green, blue] = heat[level];
      painted.data[at] = red;
      painted.data[at + 1] = green;
      painted.data[at + 2] = blue;
      painted.data[at + 3] = 255 * (whole + (1 - whole) * over * (level / 255));
    }
    canvas.width = levels.width;
    canvas.height = levels.height;
    canvas.getContext("2d").putImageData(painted, 0, 0);
  }

  function outline(canvas, regions) {
    const context = canvas.getContext("2d");
    const scale = canvas.width / OUTLINE_WIDTH;
    const path = new Path2D(regions.map((region) => "M" + region.points.replaceAll(" ", "L") + "Z").join(""));
    context.scale(scale, scale);
    context.lineJoin = "round";
    for (const [colour, width] of [["#000", 4], ["#fff", 1.5]]) {
      context.strokeStyle = colour;
      context.lineWidth = width / scale;
      context.stroke(path);
    }
  }

  /* The gallery: thumbnails come when they are about to be seen, heat when a card is pointed at or all are marked. */
  const gallery = find("#gallery");
  const mark = find("#mark");
  const cards = all(".card");
  const numberOf = (card) => Number(card.dataset.number);
  const cardOf = new Map(cards.map((card) => [numberOf(card), card]));

  const seen = new IntersectionObserver(
    (entries) => {
      for (const entry of entries.filter((each) => each.isIntersecting)) {
        seen.unobserve(entry.target);
        showThumbnail(entry.target);
      }
    },
    { rootMargin: "400px" },
  );
  cards.forEach((card) => seen.observe(card));
  addEventListener("beforeprint", () => cards.filter((card) => !card.hidden).forEach(showThumbnail));

  for (const film of all(".film")) {
    const peak = cardOf.get(Number(film.dataset.peak));
    film.scrollLeft = peak.offsetLeft - 2 * peak.offsetWidth;
  }

  async function showThumbnail(card) {
    const { photo } = await picture(numberOf(card));
    if (!photo) return;
    const image = find("img", card);
    image.src = jpeg(photo);
    image.hidden = false;
    if (gallery.classList.contains("marked")) showHeat(card);
  }

  async function showHeat(card) {
    if (!card || card.classList.contains("heated")) return;
    card.classList.add("heated");
    const detail = await picture(numberOf(card));
    const read = await levelsOf(detail);
    if (!read) return;
    const canvas = find("canvas", card);
    paint(canvas, read, 0.5);
    outline(canvas, detail.regions);
  }

  mark.addEventListener("click", () => {
    const marked = gallery.classList.toggle("marked");
    mark.setAttribute("aria-pressed", marked);
    if (marked) cards.filter((card) => !find("img", card).hidden).forEach(showHeat);
  });
  for (const event of ["pointerover", "focusin"])
    gallery.addEventListener(event, ({ target }) => showHeat(target.closest(".card")));
  gallery.addEventListener("click", ({ target }) => {
    const button = target.closest("button");
    const card = button?.closest(".card") ?? cardOf.get(Number(button?.dataset.open));
    if (card) open(card, button);
  });
  gallery.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const card = event.target.closest(".card");
    if (!step || !card) return;
    event.preventDefault();
    beside(card, step)?.firstElementChild.focus();
  });

  /* Filter and search. */
  const videos = all(".video").map((video) => [video, all(".card", video)]);
  const failures = all("#unreadable li");
  const folded = (text) => text.normalize("NFKC").toLowerCase(); /* a space is a space, é is one letter or two */
  const names = new Map([...cards, ...failures].map((each) => [each, folded(each.dataset.name)]));
  const search = find("#search");

  function filter() {
    const verdict = find("input[name=verdict]:checked").value;
    const wanted = folded(search.value.trim());
    const named = (element) => names.get(element).includes(wanted);
    let shown = 0;
    const show = (element, yes) => {
      element.hidden = !yes;
      shown += yes;
    };
    for (const card of cards) show(card, (!verdict || card.dataset.verdict === verdict) && named(card));
    for (const [video, frames] of videos) video.hidden = frames.every((frame) => frame.hidden);
    for (const failure of failures) show(failure, (!verdict || verdict === "unreadable") && named(failure));
    if (failures.length) find("#unreadable").hidden = failures.every((failure) => failure.hidden);
    find("#shown").textContent = `${shown.toLocaleString("en")} shown`;
    find("#nothing").hidden = shown > 0;
  }

  find(".tools").addEventListener("input", filter);
  find("#reset").addEventListener("click", () => {
    find("input[name=verdict]").checked = true;
    search.value = "";
    filter();
    search.focus();
  });
  filter();

  /* The detail view. */
  const dialog = find("#detail");
  const fade = find("#fade");
  const scrub = find("#scrub");
  const sharp = find("#sharp");
  const REFUSED = "This browser lets no page read pixels, so that there is no heat here.";
  let current, levels, opener;

  function beside(card, step) {
    for (let at = cards.indexOf(card) + step; at >= 0 && at < cards.length; at += step)
      if (!cards[at].hidden) return cards[at];
    return undefined;
  }

  function open(card, button) {
    opener = button;
    show(card);
    dialog.showModal();
    (find("#next:enabled") ?? find("#close")).focus();
  }

  async function show(card) {
    current = card;
    nameIt(card);
    const detail = await picture(numberOf(card));
    const read = await levelsOf(detail);
    if (current !== card) return; /* another one was asked for in the meantime */
    levels = read;
    showPictures(detail);
    showRegions(detail.regions);
    showLinks(detail);
    showFilm(card);
  }

  function nameIt(card) {
    const video = card.closest(".video");
    const name = find(video ? "h3" : ".name", video ?? card).textContent;
    const at = video ? ", " + find(".name", card).textContent : "";
    find("#detail-name").replaceChildren(make("bdi", { textContent: name }), at);
    const visible = cards.filter((each) => !each.hidden);
    const place = visible.indexOf(card) + 1;
    find("#detail-place").textContent = place ? `${place} of ${visible.length}` : "";
    find("#previous").disabled = !beside(card, -1);
    find("#next").disabled = !beside(card, 1);
    if (document.activeElement === document.body || document.activeElement?.disabled) find("#close").focus();
    find("#detail-verdict").replaceChildren(
      find(".verdict", card).cloneNode(true),
      make("span", { textContent: `score ${find(".score", card).lastChild.textContent}` }),
    );
  }

  function showPictures(detail) {
    const stage = find(".stage", dialog);
    stage.style.aspectRatio = `${detail.width} / ${detail.height}`;
    stage.style.setProperty("--shape", detail.width / detail.height);
    const photo = find("#photo");
    if (detail.photo) photo.src = jpeg(detail.photo);
    else photo.removeAttribute("src");
    photo.alt = "The picture " + detail.path;
    const refused = detail.mask && !levels;
    find(".fade", dialog).hidden = refused;
    find("#refused").hidden = !refused;
    find("#refused").textContent = REFUSED + (detail.overlay ? " It is in the overlay, which opens by the link below." : "");
    repaint();
    sharpen(detail);
  }

  /* The original itself, where it still lies in its place and is of a kind that browsers show as it was scanned. */
  let waiting;
  function sharpen(detail) {
    clearTimeout(waiting);
    sharp.hidden = true;
    sharp.removeAttribute("src");
    if (!detail.sharpens) return;
    waiting = setTimeout(async () => {
      const shown = current;
      const original = new Image();
      original.src = detail.original;
      await original.decode().catch(() => {});
      const shape = original.naturalWidth / original.naturalHeight;
      if (current !== shown || !(Math.abs(shape * (detail.height / detail.width) - 1) < 0.02)) return;
      sharp.src = original.src;
      sharp.hidden = false;
    }, 200);
  }

  function repaint() {
    const canvas = find("#heat");
    canvas.hidden = !levels;
    if (levels) paint(canvas, levels, fade.value / 100);
    fade.setAttribute("aria-valuetext", { 0: "photo alone", 100: "heat map alone" }[fade.value] ?? `${fade.value} % heat map`);
  }
  fade.addEventListener("input", repaint);

  function showRegions(regions) {
    const outlines = find("#outlines");
    const [width, height] = [OUTLINE_WIDTH, OUTLINE_WIDTH / Number(find(".stage", dialog).style.getPropertyValue("--shape"))];
    outlines.setAttribute("viewBox", `0 0 ${width} ${height}`);
    outlines.replaceChildren();
    const list = find("#regions");
    list.replaceChildren();
    const hint = regions.length ? "Point at an area, or move to it with Tab, to read about it." : "";
    find("#note").textContent = hint;
    find("#regions-title").textContent = regions.length ? "Marked areas" : "No area is marked";
    const areas = new Map();
    const letters = (15 * OUTLINE_WIDTH) / (outlines.clientWidth || OUTLINE_WIDTH); /* 15 pixels high on the screen */
    regions.forEach((region, index) => {
      const [x, y] = region.top;
      const at = { x: Math.min(Math.max(x, letters), width - letters), y: Math.max(y - letters / 2, letters) };
      const area = svg("polygon", { class: "area", points: region.points });
      const group = svg("g", {},
        svg("polygon", { class: "edge", points: region.points }),
        svg("polygon", { class: "line", points: region.points }),
        svg("text", { ...at, "font-size": letters, "stroke-width": letters / 4 }, `${index + 1}`),
      );
      const button = make("button", { type: "button" }, make("b", { textContent: `${index + 1}` }), region.place);
      const say = (on) => {
        group.classList.toggle("on", on);
        button.classList.toggle("on", on);
        if (on) outlines.append(group);
        find("#note").textContent = on
          ? `Area ${index + 1}, ${region.place}: covers ${region.area} of the picture; splice probability ${region.score} on average.`
          : hint;
      };
      for (const element of [area, group, button]) {
        element.addEventListener("pointerenter", () => say(true));
        element.addEventListener("pointerleave", () => say(document.activeElement === button));
      }
      button.addEventListener("focus", () => say(true));
      button.addEventListener("blur", () => say(false));
      areas.set(region, area);
      outlines.append(group);
      list.append(make("li", {}, button));
    });
    /* What is pointed at lies below all that is drawn: an area on those that it lies within. */
    const larger = [...regions].sort((one, other) => other.extent - one.extent);
    outlines.prepend(...larger.map((region) => areas.get(region)));
  }

  function showLinks(detail) {
    const links = [["Original", detail.original], ["Mask", detail.full_mask], ["Overlay", detail.overlay]];
    find("#links").replaceChildren(
      ...links.filter(([, href]) => href).map(([textContent, href]) => make("a", { textContent, href, target: "_blank", rel: "noopener" })),
    );
    const facts = [["File", detail.path], ["Size", `${detail.width} × ${detail.height} pixels`], ["SHA-256", detail.sha256]];
    if (detail.objects.length) facts.push(["Seen in it", detail.objects.join(", ")]);
    find("#detail-facts").replaceChildren(
      ...facts.filter(([, value]) => value).flatMap(([name, value]) => [
        make("dt", { textContent: name }),
        make("dd", {}, make("bdi", { textContent: value })),
      ]),
    );
  }

  function showFilm(card) {
    const video = card.closest(".video");
    find("#film-position").hidden = !video;
    dialog.classList.toggle("of-video", Boolean(video));
    if (!video) return;
    const frames = all(".card", video);
    scrub.max = frames.length - 1;
    scrub.value = frames.indexOf(card);
    scrub.setAttribute("aria-valuetext", find(".name", card).textContent);
    const timeline = find(".timeline", video).cloneNode(true);
    timeline.children[scrub.value].classList.add("here");
    find("#film-timeline").replaceChildren(timeline);
  }
  scrub.addEventListener("input", () => show(all(".card", current.closest(".video"))[scrub.value]));

  const go = (step) => {
    const card = beside(current, step);
    if (card) show(card);
  };
  find("#previous").addEventListener("click", () => go(-1));
  find("#next").addEventListener("click", () => go(1));
  find("#close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", ({ target }) => target === dialog && dialog.close());
  document.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (dialog.open && step && event.target.type !== "range") go(step);
  });
  dialog.addEventListener("close", () => {
    clearTimeout(waiting);
    const target = current.hidden ? opener : opener.dataset.open ? opener : current.firstElementChild;
    target.focus();
    target.scrollIntoView({ block: "nearest" });
  });

  /* Light and dark: as the system has it until the button says otherwise. */
  const theme = find("#theme");
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme ?? (systemDark.matches ? "dark" : "light")) === "dark";
  const press = () => theme.setAttribute("aria-pressed", isDark());
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    press();
  });
  systemDark.addEventListener("change", press);
  press();
})();
