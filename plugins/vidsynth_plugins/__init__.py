"""The plugins that come with vidsynth. They use its public API only, like everybody else's."""
