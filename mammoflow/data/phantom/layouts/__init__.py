"""The layouts that a drawn release may have: a module each, a dict as registry. Bytes only: no Ray, no files.

A new layout is a module with what `Layout` asks for, a line in `LAYOUTS`, and its name in `PhantomConfig.layout`.
"""

from mammoflow.data.phantom.layouts import cbis_ddsm, csv_folder, inbreast
from mammoflow.data.phantom.layouts.layout import Layout
from mammoflow.data.phantom.screening import screened

LAYOUTS: dict[str, Layout] = {
    "cbis_ddsm": Layout(
        women=lambda patient, _: patient,
        film_files=cbis_ddsm.film_files,
        metadata=cbis_ddsm.metadata,
        digitised=True,
    ),
    "inbreast": Layout(women=screened, film_files=inbreast.film_files, metadata=inbreast.metadata, digitised=False),
    "csv_folder": Layout(
        women=screened, film_files=csv_folder.film_files, metadata=csv_folder.metadata, digitised=False
    ),
}
"""Name, as in `PhantomConfig.layout` and as the reader of the same release has it, to how a release is laid out."""
