//! The data plane: compile xDS, route, balance, forward; workers, drain, admin.
