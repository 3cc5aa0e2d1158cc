"""Settings of Sphinx: MyST reads the Markdown of this repository as GitHub does."""

from alignzoo import __version__

project = "alignzoo"
author = "The alignzoo authors"
copyright = author
version = release = __version__

extensions = ["myst_parser"]
myst_heading_anchors = 4  # a heading's anchor is the one GitHub gives it
root_doc = "index"
highlight_language = "text"  # of indented blocks, which name none
suppress_warnings = ["myst.header"]  # pages made of parts may skip a level

html_theme = "furo"
html_title = "alignzoo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#0550ae",
        "color-brand-content": "#0550ae",
        "color-second-line": "#b35900",
    },
    "dark_css_variables": {
        "color-brand-primary": "#79b8ff",
        "color-brand-content": "#79b8ff",
        "color-second-line": "#ffab70",
    },
}
