"""How the page looks, and how its table is sorted."""

from __future__ import annotations

__all__ = ["SCRIPT", "STYLE"]

STYLE = """
:root { --quiet: light-dark(#666, #9a9a9a); --trained: light-dark(#2a6fb0, #5b9fe0);
        --baseline: light-dark(#d9822b, #e69138); }
h1, h3, tbody th, dd, li, p, label { overflow-wrap: anywhere; }
.what, .question { color: var(--quiet); margin: 0; font-size: .875rem; }
h1 { font-size: 1.75rem; margin: .4rem 0 .6rem; }
.verdict h2 { border: 0; font-size: 1.125rem; line-height: 1.3; margin: 1.4rem 0 .4rem; }
.verdict p { margin: .4rem 0; }
pre { background: var(--card); border-radius: .5rem; border-left: .3rem solid var(--baseline);
      padding: .7rem 1rem; margin: .8rem 0; overflow-x: auto; font-size: .8125rem;
      line-height: 1.45; max-width: 46rem; box-sizing: border-box; }
.advice, .checks { padding-left: 1.2rem; font-size: .9375rem; max-width: 46rem; }
.advice li + li, .checks li + li { margin-top: .4rem; }
figure svg { display: block; max-width: 44rem; } figure svg.narrow { display: none; }
figcaption { color: var(--quiet); font-size: .875rem; max-width: 44rem; }
figure svg text { font-family: system-ui, sans-serif !important; }
label { display: inline-block; margin: .3rem 0 .6rem; cursor: pointer; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .5rem; text-align: right; vertical-align: baseline; }
th:first-child { text-align: left; font-weight: 500; }
thead th + th { width: 10.5%; hyphens: none; }
thead th { vertical-align: bottom; line-height: 1.25; }
tbody tr { border-top: 1px solid var(--line); }
tr.baseline th { color: light-dark(#a85a0c, #e69138); }
small { display: block; color: var(--quiet); font-size: .75rem; font-weight: normal;
        white-space: nowrap; }
thead small { white-space: normal; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:hover { text-decoration: underline; }
th button:focus-visible { outline: 2px solid var(--trained); outline-offset: 3px; }
[aria-sort] button::after { content: " \\25B2"; font-size: .7em; }
[aria-sort=descending] button::after { content: " \\25BC"; }
.difference { display: none; } .sure { font-weight: 700; }
.results:has(:checked) .value { display: none; }
.results:has(:checked) .difference { display: block; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(21rem, 100%), 1fr));
          gap: 1rem 1.5rem; }
.chart { content-visibility: auto; contain-intrinsic-size: auto 22rem; font-size: .8rem; }
.chart ul { list-style: none; margin: 0; padding: 0; }
.chart li, .scale { display: grid; grid-template-columns: 10.2rem 1fr 2.4rem 2.4rem; gap: .5rem;
                    align-items: center; line-height: 1.5; }
.chart .name { font-size: .75rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.chart .number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.track { position: relative; height: 100%; min-height: 1.2em; border: solid var(--line);
         border-width: 0 1px;
         background: linear-gradient(var(--line), var(--line)) 50% / 1px 100% no-repeat; }
.track::before { content: ""; position: absolute; left: var(--base); top: 0; bottom: 0;
                 border-left: 1.5px solid var(--baseline); opacity: .7; }
.track i { position: absolute; top: calc(50% - 1px); height: 2px; background: var(--trained);
           opacity: .45; }
.track b { position: absolute; top: 50%; width: .6em; height: .6em; box-sizing: border-box;
           border: .13em solid var(--trained); border-radius: 50%; background: var(--trained);
           transform: translate(-50%, -50%); }
.track u { position: absolute; top: 15%; bottom: 15%; border-left: .15em solid var(--quiet); }
.baseline .track i { background: var(--baseline); }
.baseline .track b { background: var(--baseline); border-color: var(--baseline); }
.posthoc .track b { background: var(--background); }
.scale { color: var(--quiet); } .scale span { display: flex; justify-content: space-between; }
.scale span { grid-column: 2; margin: 0 -.6em; } .scale i { font-style: normal; }
.decided { overflow-x: auto; } .decided table { width: auto; margin-bottom: 1rem; }
.decided caption { text-align: left; font-weight: 600; } .decided th { white-space: nowrap; }
.decided th, .decided td { padding: .35rem .5rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1rem; max-width: 46rem; }
dt { color: var(--quiet); } dd { margin: 0; }
@media (min-width: 64rem) {
  .top { display: grid; grid-template-columns: 31rem minmax(0, 1fr); gap: 2.5rem;
         align-items: start; }
  .top figure { margin: 0; position: sticky; top: 1rem; }
}
@media (max-width: 44rem) {
  figure svg { display: none; } figure svg.narrow { display: block; }
  /* the name of a row stands over its numbers, which keep their columns */
  .results tr { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr));
                padding: .35rem 0; }
  h1 { font-size: 1.25rem; }
  /* a number at the end of a line that is cut off would be read wrongly */
  pre { padding: .5rem .6rem; font-size: .68rem; white-space: pre-wrap; overflow-wrap: anywhere; }
  th, td { padding: 0 .1rem; font-size: .875rem; } th:first-child { grid-column: 1 / -1; }
  thead th, thead th + th { width: auto; hyphens: manual; font-size: .75rem; align-self: end; }
  small { font-size: .65rem; letter-spacing: -.03em; white-space: normal; }
  dl { grid-template-columns: 1fr; } dd { margin-bottom: .5rem; }
}
"""

SCRIPT = """
const heads = [...document.querySelectorAll("thead th")], body = document.querySelector("tbody");
heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
  const first = head.dataset.first, second = first === "ascending" ? "descending" : "ascending";
  const order = head.getAttribute("aria-sort") === first ? second : first;
  heads.forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const value = row => row.cells[column].dataset.value;
  body.append(...[...body.rows].sort((a, b) =>  // what has no value stays last
    (value(a) === "") - (value(b) === "") || sign * (value(a) - value(b))));
}));
"""
