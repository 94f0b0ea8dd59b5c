package catalog

// ChangeKind says what happened.
type ChangeKind uint8

// What [Config].Observe is told.
const (
	// ChangeRegistered: a registration is new.
	ChangeRegistered ChangeKind = iota + 1
	// ChangeReplaced: a runtime registered a type again.
	ChangeReplaced
	// ChangeUnregistered: a registration is gone, for whatever reason.
	ChangeUnregistered
	// ChangeConflict: a registration was refused because Owner has the type.
	ChangeConflict
	// ChangeEndpointConflict: a claim was refused because Owner has the endpoint.
	ChangeEndpointConflict
	// ChangeTookOver: a registration that stood by provides its type from now on.
	ChangeTookOver
	// ChangeHealth: a runtime's health is another than before; it is told once for the
	// runtime, without a type.
	ChangeHealth
	// ChangeEjected: a provider failed too often and is set aside.
	ChangeEjected
	// ChangeReadmitted: a provider that was set aside is used again.
	ChangeReadmitted
	// ChangeWatcherBehind: a watcher of RuntimeID was too slow and missed Missed events.
	ChangeWatcherBehind
)

// Change is what the observer is told. Fields that do not belong to the kind are
// zero.
type Change struct {
	Kind                                    ChangeKind
	Type, RegistrationID, RuntimeID, SelfID string
	// Owner is the self id that a conflict was with.
	Owner string
	// Health is the runtime's.
	Health Health
	// Missed is how many events a watcher lost.
	Missed uint64
}

func changeOf(kind ChangeKind, e *entry) Change {
	return Change{
		Kind:           kind,
		Type:           e.reg.Type,
		RegistrationID: e.reg.ID,
		RuntimeID:      e.reg.RuntimeID,
		SelfID:         e.reg.SelfID,
		Health:         e.health,
	}
}
