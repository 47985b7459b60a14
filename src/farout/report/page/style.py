"""The page's style sheet: system fonts, light and dark, narrow and wide; figures take their colours from it."""

from farout.report.figures.style import GRID, INK, PALETTE, PAPER, QUIET

# Colours of the figures and what they are called in the page, where a dark theme gives them other values.
THEMED = {INK: "--ink", QUIET: "--quiet", GRID: "--line", PAPER: "--paper"} | {
    colour: f"--c{position}" for position, colour in enumerate(PALETTE)
}
DARK = {"--ink": "#e6e9ec", "--quiet": "#a3abb3", "--line": "#3a4149", "--paper": "#1a1e22"} | {
    f"--c{position}": colour
    for position, colour in enumerate(("#4ea3dc", "#f0803c", "#2fbf94", "#e39ac4", "#8fd0f5", "#f2b63c", "#b4bac0"))
}
TABS = 64  # tabs that a group may have


def style_sheet() -> str:
    """The whole sheet as text for a style element."""
    light = ";".join(f"{name}:{colour}" for colour, name in THEMED.items())
    dark = ";".join(f"{name}:{colour}" for name, colour in DARK.items())
    # The n-th choice shows the n-th panel; this needs no script.
    chosen = ",".join(f".tabs>input:nth-of-type({n}):checked~.panels>:nth-child({n})" for n in range(1, TABS + 1))
    root = f":root{{color-scheme:light dark;--page:#f4f5f7;--warn:#9a5b00;--warn-paper:#fff4dc;{light}}}"
    night = f":root{{--page:#121518;--warn:#f2c26b;--warn-paper:#33290f;{dark}}}"
    return f"{root}\n@media(prefers-color-scheme:dark){{{night}}}\n{_RULES}\n{chosen}{{display:block}}\n{_PRINT}"


_RULES = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 var(--sans);overflow-wrap:anywhere;
  --sans:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main,header,footer{max-width:72rem;margin:0 auto;padding:0 1rem}
header{padding-top:2.2rem}
h1{font-size:clamp(1.25rem,4.5vw,1.9rem);line-height:1.2;margin:0 0 .3rem;font-weight:650;letter-spacing:-.01em}
h2{font-size:1.2rem;margin:0 0 .6rem;font-weight:650}
h3{font-size:1rem;margin:1.4rem 0 .4rem;font-weight:600}
p{margin:.4rem 0 .8rem;max-width:46rem}
.quiet,figcaption,.note{color:var(--quiet);font-size:.875rem}
.card{background:var(--paper);border:1px solid var(--line);border-radius:12px;padding:1.2rem;margin:1.1rem 0}
.tiles{display:flex;flex-wrap:wrap;gap:.5rem 2.4rem;margin:1rem 0 .4rem;padding:0}
.tiles div{display:flex;flex-direction:column-reverse}
.tiles dd{margin:0;font-size:1.7rem;line-height:1.2;font-weight:600;font-variant-numeric:tabular-nums}
.tiles dt{color:var(--quiet);font-size:.85rem}
dl.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,19rem),1fr));gap:.7rem 2rem;margin:0}
dl.facts dt{color:var(--quiet);font-size:.8rem}
dl.facts dd{margin:0}
.scroll{overflow-x:auto;max-width:100%;margin:.4rem 0 .8rem;-webkit-overflow-scrolling:touch}
.scroll:focus-visible,summary:focus-visible{outline:2px solid var(--c0);outline-offset:2px}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums;overflow-wrap:normal}
caption{text-align:left;font-weight:600;padding:0 0 .4rem;font-size:.95rem;white-space:nowrap}
th,td{padding:.32rem .65rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
thead th{font-weight:600;vertical-align:bottom;white-space:normal;min-width:5.2rem}
thead tr.sub th{font-weight:400;color:var(--quiet);font-size:.78rem;white-space:nowrap}
th:first-child{text-align:left;position:sticky;left:0;background:var(--paper);padding-left:0;z-index:1;min-width:0}
td.text,th.text{text-align:left;white-space:normal}
td.mean,th.mean{border-left:1px solid var(--line)}
tbody th{font-weight:500;max-width:9rem;white-space:normal}
td b{font-weight:700}
.warn{background:var(--warn-paper);color:var(--warn);border-radius:4px;padding:.05rem .35rem;font-weight:600}
p.warn{padding:.6rem .8rem;border-radius:8px;font-weight:400}
details{margin:.8rem 0}
summary{cursor:pointer;color:var(--quiet);font-size:.9rem}
ul{margin:.3rem 0 .8rem;padding-left:1.2rem}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,25rem),1fr));gap:1.2rem;align-items:start}
.plot{margin:0;max-width:34rem}
.plot svg{display:block;width:100%;height:auto;stroke-linejoin:round;stroke-linecap:butt}
.plot .heading{display:none}
.tabs{display:flex;flex-wrap:wrap;gap:.4rem}
.tabs>input{position:absolute;opacity:0;width:1px;height:1px;pointer-events:none}
.tabs>label{border:1px solid var(--line);border-radius:99px;padding:.22rem .8rem;font-size:.875rem;cursor:pointer}
.tabs>input:checked+label{background:var(--ink);color:var(--paper);border-color:var(--ink)}
.tabs>input:focus-visible+label{outline:2px solid var(--c0);outline-offset:2px}
.panels{flex:0 0 100%;min-width:0;padding-top:.8rem}
.panels>*{display:none}
.shots{display:grid;grid-template-columns:repeat(auto-fill,minmax(5.6rem,1fr));gap:.8rem .7rem;margin:.3rem 0 1rem}
.shots figure{margin:0;min-width:0}
.shots img{display:block;width:100%;max-width:7rem;aspect-ratio:1;object-fit:contain;image-rendering:pixelated;
  border-radius:6px}
.shots figcaption{font-size:.78rem;line-height:1.35;margin-top:.25rem}
.shots figcaption b{color:var(--ink);font-weight:600}
footer{padding-bottom:2.5rem}
@media(min-width:56rem){.plots>:first-child:not(:last-child){grid-row:span 2}}
@media(max-width:30rem){main,header,footer{padding-left:.6rem;padding-right:.6rem}.card{padding:.9rem .75rem}
  th,td{padding:.3rem .5rem}.plot{margin:0 -.5rem}}
""".strip()

_PRINT = "@media print{.panels>*{display:block}.tabs>label{display:none}.card{break-inside:avoid;border:0}}"
