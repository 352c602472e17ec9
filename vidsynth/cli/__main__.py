"""`python -m vidsynth.cli`, and with it `accelerate launch -m vidsynth.cli`."""

from vidsynth.cli import main

main(prog_name="vidsynth")
