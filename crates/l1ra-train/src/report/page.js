"use strict";
(() => {
  const run = JSON.parse(document.getElementById("run-data").textContent);
  const grouped = (value) => String(value).replace(/\B(?=(\d{3})+$)/g, ",");
  const SVG = "http://www.w3.org/2000/svg";

  // Ranks at a moment: those of the start with the changes up to it.
  const ranksAt = (index) => {
    const ranks = run.ranks.start.slice();
    for (const moment of run.ranks.moments.slice(0, index + 1)) {
      for (const [adapter, rank] of moment.changes) ranks[adapter] = rank;
    }
    return ranks;
  };

  const shade = (start, rank) => {
    const { scale, shades } = run.ranks;
    const side = rank < start ? "l" : rank > start ? "g" : "k";
    return `lc-${side}${Math.ceil((Math.abs(rank - start) * shades) / scale)}`;
  };

  const groupSums = (ranks, places) => {
    const groups = [];
    places.forEach((place, adapter) => {
      const group = (groups[place] ??= { sum: 0, count: 0 });
      group.sum += ranks[adapter];
      group.count += 1;
    });
    return groups;
  };

  const drawHeat = (index) => {
    const ranks = ranksAt(index);
    for (const cell of document.querySelectorAll("#heat .cell")) {
      const adapter = Number(cell.dataset.adapter);
      const [start, rank] = [run.ranks.start[adapter], ranks[adapter]];
      cell.dataset.rank = rank;
      cell.textContent = rank;
      cell.title = `${start} → ${rank}`;
      cell.className = `cell ${shade(start, rank)}`;
    }
    const modules = groupSums(ranks, run.ranks.modules);
    for (const cell of document.querySelectorAll("#heat [data-mean]")) {
      const { sum, count } = modules[Number(cell.dataset.mean)];
      cell.textContent = (sum / count).toFixed(1);
    }
    const layers = groupSums(ranks, run.ranks.layers);
    for (const cell of document.querySelectorAll("#heat [data-sum]")) {
      cell.textContent = layers[Number(cell.dataset.sum)].sum;
    }
  };

  const drawGates = (moment, index) => {
    const note = document.getElementById("gates-note");
    const columns = document.querySelectorAll("#gates [data-bar]");
    if (!columns.length) return;
    const gates = moment.gates ?? new Array(columns.length).fill(0);
    note.textContent = !moment.gates
      ? "No gates were written at the start."
      : moment.label === "end"
        ? `The gates at the end, step ${grouped(moment.step)}.`
        : `The gates that update ${index} decided from, step ${grouped(moment.step)}.`;
    columns.forEach((column, bar) => {
      const rect = column.querySelector("rect");
      const text = column.querySelector("text");
      const count = gates[bar];
      const base = Number(column.dataset.base);
      const height = (Number(column.dataset.height) * count) / run.ranks.tallest;
      rect.setAttribute("y", base - height);
      rect.setAttribute("height", height);
      text.setAttribute("y", base - height - 4);
      text.textContent = count ? grouped(count) : "";
      column.querySelector("title").textContent = `gates ${column.dataset.range}: ${count}`;
    });
  };

  const slider = document.getElementById("update");

  const show = (index) => {
    const moment = run.ranks.moments[index];
    slider.value = index;
    slider.setAttribute("aria-valuetext", `${moment.label}, step ${grouped(moment.step)}`);
    document.getElementById("moment-label").textContent = moment.label;
    document.getElementById("moment-step").textContent = grouped(moment.step);
    document.getElementById("moment-total").textContent = grouped(moment.total);
    document.getElementById("moment-moved").textContent = grouped(moment.moved);
    drawHeat(index);
    drawGates(moment, index);
    let current = null;
    for (const link of document.querySelectorAll("[data-moment]")) {
      link.removeAttribute("aria-current");
      if (Number(link.dataset.moment) <= index) current = link;
    }
    current?.setAttribute("aria-current", "true");
  };

  // `#update=3` in the address shows update 3; 0 is the start.
  const fromAddress = () => {
    const match = /^#update=(\d+)$/.exec(location.hash);
    const last = run.ranks.moments.length - 1;
    return match ? Math.min(Number(match[1]), last) : last;
  };

  if (run.ranks && slider) {
    slider.addEventListener("input", () => {
      show(Number(slider.value));
      history.replaceState(null, "", `#update=${slider.value}`);
    });
    addEventListener("hashchange", () => show(fromAddress()));
    show(fromAddress());
  }

  const formats = {
    loss: (value) => value.toFixed(4),
    rate: (value) => value.toExponential(2),
    mean: (value) => value.toFixed(1),
    count: (value) => grouped(Math.round(value)),
  };

  // Index of the point at or before `x` where values hold, else of the nearest one; -1 for none.
  const nearest = (series, x) => {
    let [low, high] = [0, series.x.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (series.x[middle] <= x) low = middle + 1;
      else high = middle;
    }
    const before = low - 1;
    if (series.holds || low === series.x.length) return before;
    return before < 0 || series.x[low] - x < x - series.x[before] ? low : before;
  };

  // Values are told below a chart, where no finger covers them.
  const pointing = (svg, plots, readout) => {
    const rest = readout.dataset.rest ?? "";
    const cross = document.createElementNS(SVG, "path");
    cross.setAttribute("class", "lc-cross");
    svg.append(cross);
    svg.tabIndex = 0;
    readout.textContent = rest;
    const { area, x: domain } = plots[0];
    let at = null;
    const tell = (wanted) => {
      const own = plots[0].series.find((series) => series.x.length);
      const step = own.holds ? Math.round(wanted) : own.x[nearest(own, wanted)];
      at = Math.min(Math.max(step, domain[0]), domain[1]);
      const part = (at - domain[0]) / (domain[1] - domain[0]);
      const x = area[0] + part * (area[2] - area[0]);
      cross.setAttribute("d", plots.map((plot) => `M${x} ${plot.area[1]}V${plot.area[3]}`).join(""));
      readout.replaceChildren(`step ${grouped(at)}`);
      for (const series of plots.flatMap((plot) => plot.series)) {
        const index = nearest(series, at);
        if (index < 0) continue;
        const value = document.createElement("b");
        value.textContent = formats[series.format](series.y[index]);
        const other = !series.holds && series.x[index] !== at ? ` (step ${grouped(series.x[index])})` : "";
        readout.append(` · ${series.name} `, value, other);
      }
    };
    const leave = () => {
      cross.removeAttribute("d");
      readout.textContent = rest;
      at = null;
    };
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
      const part = (x - area[0]) / (area[2] - area[0]);
      tell(domain[0] + Math.min(Math.max(part, 0), 1) * (domain[1] - domain[0]));
    });
    svg.addEventListener("pointerleave", leave);
    svg.addEventListener("blur", leave);
    svg.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!way) return;
      event.preventDefault();
      const size = Math.max(1, Math.round((domain[1] - domain[0]) / 100));
      tell(at === null ? (way > 0 ? domain[0] : domain[1]) : at + way * size);
    });
  };

  for (const [name, plots] of Object.entries(run.plots)) {
    const svg = document.querySelector(`svg[data-chart="${name}"]`);
    const readout = document.querySelector(`[data-readout="${name}"]`);
    const filled = plots.some((plot) => plot.series.some((series) => series.x.length));
    if (svg && readout && filled) pointing(svg, plots, readout);
  }

  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });

  document.documentElement.dataset.ready = "1";
})();
