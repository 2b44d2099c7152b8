from ._agreement import agreement as agreement
from ._basins import basins as basins
from ._coherence import coherence as coherence
from ._convergence import convergence as convergence
from ._similarity import similarity as similarity
from ._update_spectra import update_spectra as update_spectra
