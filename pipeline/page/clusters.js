// Documents of a source by the size of their cluster of near-duplicates, in powers of two.

const clusters = chart("clusters", (width) => {
  const source = sourceNow();
  const bins = source.clusters.map(([least, n, kept]) => [Math.log2(least), n, kept]);
  const last = Math.max(3, ...bins.map(([power]) => power + 1));
  const top = Math.max(1, ...bins.map(([, n]) => n)) * 1.05;
  const every = Math.ceil(last / Math.floor(width / 60));
  const frame = plot(
    width,
    260,
    {
      top: last,
      ticks: Array.from({ length: last + 1 }, (_, i) => i).filter((i) => i % every === 0),
      format: (power) => short.format(2 ** power),
      label: "documents in the cluster",
    },
    isLog("clusters")
      ? { log: true, low: 0.5, top, ticks: powers(1, top), format: (v) => short.format(v) }
      : { top, ticks: ticks(top, 5).filter(Number.isInteger), format: (v) => short.format(v) },
    `Documents of ${source.name} by the size of their cluster of near-duplicates`,
  );
  const bar = (n, power, kind) => {
    const x = frame.toX(power);
    return svg("rect", {
      class: kind,
      x: x + 1,
      width: Math.max(0.8, frame.toX(power + 1) - x - 2),
      y: frame.toY(n),
      height: frame.bottom - frame.toY(n),
    });
  };
  for (const [power, n, kept] of bins) {
    frame.root.append(bar(n, power, "dropped"));
    if (kept) frame.root.append(bar(kept, power, "kept"));
  }
  hover(frame, (value) => {
    const power = Math.min(last - 1, Math.floor(value));
    const [, n, kept] = bins.find(([p]) => p === power) ?? [power, 0, 0];
    const size = power ? `clusters of ${number(2 ** power)} to ${number(2 ** (power + 1) - 1)}` : "";
    return [
      size || "without near-duplicates",
      `${number(n)} documents`,
      `${number(kept)} kept (${percent(kept, n)})`,
    ];
  });
  const [all, several] = [bins, bins.filter(([power]) => power)].map((some) =>
    some.reduce((sum, [, n]) => sum + n, 0),
  );
  legend("clusters-legend", [
    ["box dropped", "all compared"],
    ["box kept", "kept by this run"],
    ["", `${number(several)} of ${number(all)} have near-duplicates (${percent(several, all)})`],
  ]);
  return frame.root;
});

function listenToClusters() {
  if (!data.sources.some((source) => source.clusters.length)) return;
  document.getElementById("clustered").hidden = false;
  listen("clusters-log", "change", clusters);
}
