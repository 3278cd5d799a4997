//! Sinks: views kept equal in other systems.
