from lenspipe import completeness as completeness
from lenspipe.api import Model as Model
from lenspipe.api import Run as Run
from lenspipe.api import Stamp as Stamp
from lenspipe.api import cutouts as cutouts
from lenspipe.api import paint as paint
from lenspipe.api import rgb as rgb
from lenspipe.api import scan_survey as scan_survey
from lenspipe.api import score as score
from lenspipe.api import similar as similar
from lenspipe.api import simulate_lens as simulate_lens
from lenspipe.stamps.format import StampSet as StampSet

__version__: str
