"""Readers: files of any known format in, Arrow batches of documents out."""

from pipeline.readers.contract import FieldMap as FieldMap
from pipeline.readers.contract import InputRange as InputRange
from pipeline.readers.contract import Quarantined as Quarantined
from pipeline.readers.contract import ReadOptions as ReadOptions
from pipeline.readers.contract import ReadReport as ReadReport
from pipeline.readers.contract import StreamFormat as StreamFormat
from pipeline.readers.contract import TableFormat as TableFormat
from pipeline.readers.contract import document_schema as document_schema
from pipeline.readers.contract import open_local as open_local
from pipeline.readers.formats import digest_range as digest_range
from pipeline.readers.formats import format_of as format_of
from pipeline.readers.formats import language_field as language_field
from pipeline.readers.formats import plan_ranges as plan_ranges
from pipeline.readers.formats import read_batches as read_batches
from pipeline.readers.user_formats import user_format as user_format
from pipeline.readers.web.html_text import check_extractor as check_extractor
