"""MONAI without what it would import besides."""

import subprocess
import sys


def test_reading_radiographs_imports_no_transformers_and_it_can_be_imported_afterwards():
    code = (
        "import sys; import cxr_models.predictor; "
        "assert 'monai' in sys.modules; "
        "assert not {'transformers', 'diffusers', 'peft', 'accelerate'} & set(sys.modules), sorted(sys.modules); "
        "import transformers; transformers.CLIPTokenizer"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
