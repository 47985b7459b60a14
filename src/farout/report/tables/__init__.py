"""Tables of our figures beside the papers', as text, Markdown and CSV."""
