"use strict";
(() => {
  const every = (selector, root = document) => [...root.querySelectorAll(selector)];
  const say = (text) => { document.getElementById("said").textContent = text; };
  every(".zoom, .copy, .keys").forEach((element) => { element.hidden = false; });

  // A chart's title would be shown as a tooltip over its own card; its name stays for screen readers.
  every("svg[role=group]").forEach((svg) => {
    const title = svg.querySelector("title");
    svg.setAttribute("aria-label", title.textContent);
    svg.removeAttribute("aria-labelledby");
    title.remove();
  });

  // Copy buttons. A page from a file may be refused the clipboard; then the selection is copied.
  every(".copy").forEach((button) => button.addEventListener("click", async () => {
    const code = button.previousElementSibling;
    let copied = true;
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      getSelection().selectAllChildren(code);
      copied = document.execCommand("copy");
    }
    button.textContent = copied ? "Copied" : "Select it";
    say(copied ? "Copied" : "Not copied: select the line and copy it");
    setTimeout(() => { button.textContent = "Copy"; }, 1600);
  }));

  // One of a chart's items is in the tab order; arrow keys go from one to the next.
  const rove = (items, show, keys = {}) => {
    const byX = [...items].sort((a, b) => a.dataset.x - b.dataset.x || a.dataset.y - b.dataset.y);
    const byY = [...items].sort((a, b) => a.dataset.y - b.dataset.y || a.dataset.x - b.dataset.x);
    const go = (item) => {
      items.forEach((other) => other.setAttribute("tabindex", other === item ? "0" : "-1"));
      item.focus({ preventScroll: true });
    };
    const step = (order, item, by) => go(order[(order.indexOf(item) + by + order.length) % order.length]);
    const moves = {
      ArrowRight: (item) => step(byX, item, 1), ArrowLeft: (item) => step(byX, item, -1),
      ArrowUp: (item) => step(byY, item, 1), ArrowDown: (item) => step(byY, item, -1),
      Home: () => go(byX[0]), End: () => go(byX[byX.length - 1]), ...keys,
    };
    items.forEach((item) => {
      item.addEventListener("focus", () => show(item));
      item.addEventListener("keydown", (event) => {
        const move = moves[event.key];
        if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
        event.preventDefault();
        move(item);
      });
    });
  };

  const svgElement = (name, attributes, text = "") => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
    made.textContent = text;
    return made;
  };
  const shown = (value) => {
    const size = Math.abs(value);
    if (size && (size >= 1e6 || size < 1e-4)) return value.toExponential(0).replace("e+", "e");
    return Number(value.toPrecision(6)).toLocaleString("en");
  };
  const roundValues = (low, high) => {
    const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].find((m) => m * power >= rough) * power;
    const found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high * (1 + 1e-9) && found.length < 12; i++) found.push(i * step);
    return found;
  };

  every(".zoomable").forEach((chart) => {
    const frame = chart.querySelector(".frame"), plot = chart.querySelector(".plot");
    const lines = chart.querySelector(".lines"), ticks = chart.querySelector(".ticks");
    const ticksAtFirst = ticks.cloneNode(true), points = every(".points > .point", chart);
    const number = (name) => Number(chart.dataset[name]);
    const whole = { x: 0, y: 0, width: 100, height: 100 };  // in per cent, y from below
    let view = { ...whole }, current = null;

    // A logarithmic axis is ticked at round values as well: only their places are unequal.
    const axis = (low, high, log) => {
      const line = (value) => (log ? Math.log10(value) : value);
      const back = (value) => (log ? 10 ** value : value);
      const from = line(low), size = line(high) - from;
      return {
        at: (value) => (100 * (line(value) - from)) / size,
        values: (start, end) => roundValues(back(from + (size * start) / 100), back(from + (size * end) / 100)),
      };
    };
    const x = axis(number("xLow"), number("xHigh"), number("xLog"));
    const y = axis(number("yLow"), number("yHigh"), number("yLog"));
    const place = (point) => [
      (100 * (point.dataset.x - view.x)) / view.width,
      100 - (100 * (point.dataset.y - view.y)) / view.height,
    ];

    const drawTicks = () => {
      if (view.width === 100) return ticks.replaceChildren(...ticksAtFirst.cloneNode(true).childNodes);
      const made = [];
      y.values(view.y, view.y + view.height).forEach((value) => {
        const at = `${100 - (100 * (y.at(value) - view.y)) / view.height}%`;
        made.push(svgElement("line", { x1: 0, x2: "100%", y1: at, y2: at }));
        made.push(svgElement("text", { class: "y", x: 0, dx: -8, y: at, dy: ".32em" }, shown(value)));
      });
      x.values(view.x, view.x + view.width).forEach((value) => {
        const at = `${(100 * (x.at(value) - view.x)) / view.width}%`;
        made.push(svgElement("text", { class: "x", x: at, y: "100%", dy: "1.5em" }, shown(value)));
      });
      ticks.replaceChildren(...made);
    };
    const draw = () => {
      lines.setAttribute("viewBox", `${10 * view.x} ${1000 - 10 * (view.y + view.height)} ${10 * view.width} ${10 * view.height}`);
      points.forEach((point) => {
        const [left, top] = place(point);
        point.setAttribute("x", `${left}%`);
        point.setAttribute("y", `${top}%`);
        point.classList.toggle("away", left < -1 || left > 101 || top < -1 || top > 101);
      });
      chart.classList.toggle("zoomed", view.width < 100);
      drawTicks();
      if (current) putCard();
    };
    const bounded = (start, size) => Math.min(Math.max(start, 0), 100 - size);
    const look = (left, bottom, size) => {
      view = { x: bounded(left, size), y: bounded(bottom, size), width: size, height: size };
      draw();
    };
    const zoom = (factor, centre) => {
      const size = Math.min(100, Math.max(2, view.width / factor));
      const [cx, cy] = centre || (current && !current.classList.contains("away")
        ? [Number(current.dataset.x), Number(current.dataset.y)]
        : [view.x + view.width / 2, view.y + view.height / 2]);
      const keep = size / view.width;
      look(cx - (cx - view.x) * keep, cy - (cy - view.y) * keep, size);
      say(size === 100 ? "The whole view" : `Zoomed ${(100 / size).toFixed(1)} times`);
    };
    const reset = () => { look(0, 0, 100); say("The whole view"); };

    const card = (point) => document.getElementById(point.dataset.card);
    const putCard = () => {
      const box = card(current), area = plot.getBoundingClientRect(), outer = frame.getBoundingClientRect();
      const [left, top] = place(current).map((share, i) => (share / 100) * (i ? area.height : area.width));
      const dx = area.left - outer.left, dy = area.top - outer.top;
      const beside = left + 18 + box.offsetWidth <= area.width ? left + 18 : left - 18 - box.offsetWidth;
      box.style.left = `${Math.max(beside, -dx) + dx}px`;
      box.style.top = `${Math.max(0, Math.min(top - 24, area.height - box.offsetHeight)) + dy}px`;
    };
    const hide = () => {
      if (!current) return;
      card(current).hidden = true;
      current.classList.remove("active");
      current = null;
    };
    const show = (point) => {
      if (current !== point) hide();
      current = point;
      const [left, top] = place(point);
      if (left < 0 || left > 100 || top < 0 || top > 100) {
        look(point.dataset.x - view.width / 2, point.dataset.y - view.height / 2, view.width);
      }
      point.classList.add("active");
      card(point).hidden = false;
      putCard();
    };
    const link = (point) => { const found = card(point).querySelector("a"); if (found) found.focus(); };
    rove(points, show, {
      "+": () => zoom(1.6), "=": () => zoom(1.6), "-": () => zoom(1 / 1.6), 0: reset, Escape: hide, Enter: link,
    });
    points.forEach((point) => {
      point.addEventListener("pointerenter", () => show(point));
      point.addEventListener("click", () => show(point));
    });
    chart.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !current) return;
      const point = current;
      if (card(point).contains(document.activeElement)) point.focus();
      hide();
    });
    document.addEventListener("pointerdown", (event) => { if (!chart.contains(event.target)) hide(); });

    const actions = { in: () => zoom(1.6), out: () => zoom(1 / 1.6), reset };
    every("[data-zoom]", chart).forEach((button) => button.addEventListener("click", actions[button.dataset.zoom]));
    const under = (event) => {
      const area = plot.getBoundingClientRect();
      return [
        view.x + (view.width * (event.clientX - area.left)) / area.width,
        view.y + view.height * (1 - (event.clientY - area.top) / area.height),
      ];
    };
    plot.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      zoom(event.deltaY < 0 ? 1.25 : 0.8, under(event));
    }, { passive: false });
    plot.addEventListener("dblclick", reset);
    let drag = null;
    plot.addEventListener("pointerdown", (event) => {
      if (view.width === 100 || event.button) return;
      drag = { at: under(event) };
      plot.setPointerCapture(event.pointerId);
    });
    plot.addEventListener("pointermove", (event) => {
      if (!drag) return;
      const [nowX, nowY] = under(event);
      look(view.x + drag.at[0] - nowX, view.y + drag.at[1] - nowY, view.width);
    });
    ["pointerup", "pointercancel"].forEach((name) => plot.addEventListener(name, () => { drag = null; }));
    addEventListener("resize", () => { if (current) putCard(); });
  });

  // Curves: the nearest to the pointer, or the focused one, is told below its chart.
  every(".curves").forEach((chart) => {
    const plot = chart.querySelector(".plot"), reading = chart.querySelector(".reading");
    const curves = every(".curve", chart);
    const places = new Map(curves.map((curve) => {
      const numbers = curve.getAttribute("d").match(/-?\d+/g).map(Number);
      const found = [];
      for (let i = 0; i < numbers.length; i += 2) found.push([numbers[i] / 1000, numbers[i + 1] / 1000]);
      curve.dataset.x = found[found.length - 1][0];
      curve.dataset.y = -found[found.length - 1][1];
      return [curve, found];
    }));
    const show = (curve) => {
      curves.forEach((other) => other.classList.toggle("active", other === curve));
      reading.textContent = curve ? curve.getAttribute("aria-label") : "";
    };
    const distance = (found, px, py, width, height) => {
      let least = Infinity;
      for (let i = 1; i < found.length; i++) {
        const ax = found[i - 1][0] * width, ay = found[i - 1][1] * height;
        const bx = found[i][0] * width - ax, by = found[i][1] * height - ay;
        const along = Math.max(0, Math.min(1, ((px - ax) * bx + (py - ay) * by) / (bx * bx + by * by || 1)));
        least = Math.min(least, Math.hypot(ax + along * bx - px, ay + along * by - py));
      }
      return least;
    };
    plot.addEventListener("pointermove", (event) => {
      const area = plot.getBoundingClientRect();
      let nearest = null, least = 28;
      places.forEach((found, curve) => {
        const far = distance(found, event.clientX - area.left, event.clientY - area.top, area.width, area.height);
        if (far < least) { least = far; nearest = curve; }
      });
      show(nearest);
    });
    plot.addEventListener("pointerleave", () => show(curves.find((c) => c === document.activeElement) || null));
    rove(curves, show);
    curves.forEach((curve) => curve.addEventListener("blur", () => show(null)));
  });
})();
