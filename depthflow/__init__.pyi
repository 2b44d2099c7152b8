from . import datasets as datasets
from . import errors as errors
from . import kernels as kernels
from . import plot as plot
from . import schema as schema
from . import synthetic as synthetic
from .measures.basins import basins as basins
from .measures.coherence import coherence as coherence
from .measures.convergence import convergence as convergence
from .measures.phases import phases as phases
from .measures.similarity import similarity as similarity
from .measures.spectra import update_spectra as update_spectra
from .measures.spherical_kmeans import SphericalKMeans as SphericalKMeans
from .measures.von_mises_fisher import VonMisesFisherMixture as VonMisesFisherMixture
from .models.base import ModelInfo as ModelInfo
from .recording.forward import record as record
from .recording.inspection import inspect as inspect
from .resample import bootstrap as bootstrap
from .resample import random_directions as random_directions
from .resample import shuffle_depth as shuffle_depth
from .store import open_trajectory as open_trajectory
from .store import save_trajectory as save_trajectory
from .trajectories import select_tokens as select_tokens
from .trajectories import trajectory as trajectory
from .trajectories import updates as updates

__version__: str
