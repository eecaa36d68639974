//! The load tool against a server of a few lines, one that dies and one that lies.

