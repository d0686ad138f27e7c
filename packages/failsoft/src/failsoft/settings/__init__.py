"""Settings: one frozen structure, the same keys in every framework.

Rules:

- Settings are read and validated once, when the application starts. Nothing in them changes afterwards.
- A mistake is an error, also a name that does not exist; every mistake of every source is reported at once.
- The sources, each overriding the next: what the application passes, the environment (``FAILSOFT_STORE``), a TOML file
  that ``FAILSOFT_CONFIG`` names, the defaults.
- An option is declared once, as data (`OPTIONS`): validation, ids of mistakes and the reference page come from there.
- Secrets are shown in no message and no repr.
"""

from failsoft.settings.problems import SettingProblem, SettingsError, mask
from failsoft.settings.sources import Option
from failsoft.settings.structure import OPTIONS, Settings
from failsoft.settings.tables import Scope

__all__ = ["OPTIONS", "Option", "Scope", "SettingProblem", "Settings", "SettingsError", "mask"]
