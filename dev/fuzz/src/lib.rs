//! Fuzz targets for every byte that comes from outside.
