"""The layouts of drawn releases: a module per layout, a dict as registry. Bytes only: no Ray, no files.

To add a layout, write a module with the functions of `Layout`, an entry in `LAYOUTS`, and its name in
`PhantomConfig.layout`.
"""

from mammoflow.data.phantom.layouts import cbis_ddsm, csv_folder, inbreast
from mammoflow.data.phantom.layouts.layout import Layout
from mammoflow.data.phantom.screening import screened

LAYOUTS: dict[str, Layout] = {
    "cbis_ddsm": Layout(
        examine=lambda patient, _: patient,
        film_files=cbis_ddsm.film_files,
        metadata=cbis_ddsm.metadata,
        digitised=True,
        films_per_patient=2.0,
    ),
    "inbreast": Layout(
        examine=screened,
        film_files=inbreast.film_files,
        metadata=inbreast.metadata,
        digitised=False,
        films_per_patient=3.6,
    ),
    "csv_folder": Layout(
        examine=screened,
        film_files=csv_folder.film_files,
        metadata=csv_folder.metadata,
        digitised=False,
        films_per_patient=3.6,
    ),
}
"""Layouts by name, as in `PhantomConfig.layout`; the release's reader in `releases.RELEASES` has the same name."""
