"""Train a run and evaluate it: `python train.py method=energy m_in=-25 m_out=-7`; see --help."""

from farout.commands.entry import start

if __name__ == "__main__":
    start("train")
