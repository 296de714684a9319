"""How an evaluation's page looks: light or dark as the reader's system is, on paper too."""

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1c2330; --quiet: #5b6575; --rule: #d9dde4; --tint: 37 99 173;
  --accent: #2563ad; --accent2: #8a94a6; --bad: #b3372f;
  --c0: #2563ad; --c1: #b3541e; --c2: #1d7a52; --c3: #8b3fa0;
  --c4: #a32f4b; --c5: #5f6f12; --c6: #0f7482 }
@media (prefers-color-scheme: dark) { :root { --paper: #14181f; --ink: #e6e9ef; --quiet: #a0a9b8; --rule: #343c49;
  --tint: 96 165 250; --accent: #7ab4f5; --accent2: #7c8798; --bad: #f08d84;
  --c0: #7ab4f5; --c1: #f0a36b; --c2: #6fcf9f; --c3: #d79be8;
  --c4: #f28ba3; --c5: #c5d36a; --c6: #6ccfdc } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 64rem; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--rule) }
p { margin: .5rem 0; max-width: 46rem }
.quiet, .note { color: var(--quiet) }
.note { font-size: .9rem }
.warn { color: var(--bad) }
.headline { display: flex; flex-wrap: wrap; gap: 1.25rem 2.5rem; margin: 1.5rem 0; padding: 0; list-style: none }
.headline b { display: block; font-size: 1.9rem; line-height: 1.15; font-variant-numeric: tabular-nums }
.headline span { display: block; font-size: .85rem; color: var(--quiet) }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem }
caption { text-align: left; color: var(--quiet); font-size: .9rem; padding-bottom: .4rem }
th, td { padding: .3rem .8rem .3rem 0; text-align: right; border-bottom: 1px solid var(--rule); font-weight: normal }
thead th { color: var(--quiet); vertical-align: bottom }
thead th:first-child { text-align: left }
tbody th { text-align: left; overflow-wrap: anywhere; min-width: 6rem }
.confusion td { padding: .45rem .7rem; text-align: center; min-width: 4.2rem; border: 1px solid var(--rule);
  background: rgb(var(--tint) / calc(var(--share) * .55)) }
.confusion td.hit { outline: 2px solid var(--accent); outline-offset: -2px }
.confusion td.none { color: var(--quiet) }
.confusion td small { display: block; color: var(--ink); opacity: .8; font-size: .75rem }
.confusion thead th { text-align: center; padding: .3rem .5rem }
.pair { display: flex; flex-wrap: wrap; gap: 1rem 3rem; align-items: flex-start }
figure { margin: .5rem 0; display: flex; flex-wrap: wrap; gap: .5rem 2.5rem; align-items: flex-start }
svg.square { width: 23rem; max-width: 100%; height: auto; display: block }
svg.wide { width: 26rem; max-width: 100%; height: auto; display: block }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink) }
svg .tick { fill: var(--quiet); font-size: 11px }
.grid { stroke: var(--rule); fill: none; stroke-width: 1 }
.diagonal { stroke: var(--quiet); fill: none; stroke-width: 1; stroke-dasharray: 3 4 }
.line { fill: none; stroke-width: 2; stroke-linejoin: round }
.c0 { stroke: var(--c0) } .c1 { stroke: var(--c1) } .c2 { stroke: var(--c2) } .c3 { stroke: var(--c3) }
.c4 { stroke: var(--c4) } .c5 { stroke: var(--c5) } .c6 { stroke: var(--c6) }
.d1 { stroke-dasharray: 9 3 } .d2 { stroke-dasharray: 4 2 } .d3 { stroke-dasharray: 10 3 2 3 }
.d4 { stroke-dasharray: 2 2 } .d5 { stroke-dasharray: 14 3 2 2 2 3 }
rect.bar, i.bar { fill: var(--accent); background: var(--accent) }
rect.bar2, i.bar2 { fill: var(--accent2); background: var(--accent2) }
.gap { fill: var(--bad); opacity: .25 }
.dot { fill: var(--accent) }
.legend { list-style: none; margin: .5rem 0 0; padding: 0; font-size: .9rem }
svg.key { width: 30px; height: 8px; margin-right: .6rem; vertical-align: middle }
i.key { display: inline-block; width: 14px; height: 10px; margin-right: .6rem }
.mistakes { list-style: none; margin: 1rem 0; padding: 0; display: grid; gap: 1.25rem 1rem;
  grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); font-size: .85rem; line-height: 1.35 }
.mistakes img { display: block; max-width: 128px; height: auto; margin-bottom: .4rem; border-radius: 3px;
  background: var(--rule) }
.mistakes .name { overflow-wrap: anywhere; color: var(--quiet) }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.5rem; margin: 0; font-size: .9rem }
dt { color: var(--quiet) }
dd { margin: 0; overflow-wrap: anywhere }
code { font: .9em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }
@media (max-width: 36rem) { dl { grid-template-columns: 1fr; gap: 0 } dd { margin-bottom: .5rem } }
@media print { body { max-width: none; padding: 0 } figure, .mistakes li, table { break-inside: avoid } }
"""
