"""Files of pictures for the tests; the patients that they name are invented."""

import io
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

NAME = "Quirrenbach^Anneliese"


def dicom(pixels: NDArray[Any], **tags: Any) -> bytes:
    """A DICOM file of unsigned 16-bit pixels that tells NAME, in its header and in a private tag."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = tags.pop("syntax", ExplicitVRLittleEndian)
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.PatientName, made.PatientID, made.StudyDescription = NAME, NAME, f"seen by Dr {NAME}"
    made.private_block(0x0011, NAME, create=True).add_new(0x01, "LO", NAME)
    made.Rows, made.Columns = pixels.shape[:2]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 0
    made.PixelData = np.ascontiguousarray(pixels, "<u2").tobytes()
    for keyword, value in tags.items():
        setattr(made, keyword, value)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.save_as(file, enforce_file_format=False)
    return file.getvalue()
