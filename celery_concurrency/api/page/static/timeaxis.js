// The time axis that plots share: dragging across one of them zooms into all, a double click goes back.

/** The shortest part that one can zoom into, in s. */
const SHORTEST = 300;

/** @param changed is told whether only a part is shown. */
export function createTimeAxis(changed) {
  const plots = new Set();
  let whole = [0, 0];
  let part = null;

  function zoom(range) {
    part = range;
    const [min, max] = part ?? whole;
    for (const plot of plots) plot.setScale("x", { min, max });
    changed(part !== null);
  }

  function onSelect(plot) {
    const { left, width } = plot.select;
    const [from, to] = [plot.posToVal(left, "x"), plot.posToVal(left + width, "x")];
    const more = Math.max(0, SHORTEST - (to - from)) / 2;
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    zoom([from - more, to + more]);
  }

  return {
    zoom,
    /** Set from when to when the whole is, in Unix seconds; a part stays. */
    setWhole(from, to) {
      whole = [from, to];
    },
    /** uPlot's options of the scale, the cursor and its hooks. */
    scale: { range: () => part ?? whole },
    cursor: {
      drag: { x: true, y: false, setScale: false },
      bind: { dblclick: () => () => zoom(null) },
      sync: { key: "time", scales: ["x", null], filters: { pub: (type) => !["mousedown", "mouseup", "dblclick"].includes(type) } },
    },
    hooks: {
      ready: [(plot) => plots.add(plot)],
      destroy: [(plot) => plots.delete(plot)],
      setSelect: [onSelect],
    },
  };
}
