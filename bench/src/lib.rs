//! Load tool and roof programs.
