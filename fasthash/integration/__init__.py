"""Other libraries: each module here is the only one that imports the library that it is named after."""
