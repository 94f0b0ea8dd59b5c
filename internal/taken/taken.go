// Package taken knows which listeners of this process somebody serves on: two that do take each other's connections, and
// each refuses those of the other.
package taken

import (
	"net"
	"reflect"
	"sync"
)

var listeners sync.Map //nolint:gochecknoglobals // of the process, whose hosts and plugins know nothing of each other

// Take takes a listener, until it is given back, and reports whether nobody else has it. Of one that cannot be told from
// others, and of nil, nothing is known: everybody has it.
func Take(l net.Listener) (give func(), ok bool) {
	if l == nil || !told(l) {
		return func() {}, true
	}
	if _, there := listeners.LoadOrStore(l, struct{}{}); there {
		return nil, false
	}
	return func() { listeners.Delete(l) }, true
}

// told reports whether a listener can be told from others: what has no size may be where another one is.
func told(l net.Listener) bool {
	v := reflect.ValueOf(l)
	t := v.Type()
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return v.Comparable() && t.Size() > 0
}
