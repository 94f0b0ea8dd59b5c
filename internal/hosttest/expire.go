package hosttest

import (
	"reflect"
	"testing"
	"unsafe"

	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// Expire ends what has expired by the time at which an identity does, as if it were
// that time: those that were issued or renewed before it, and itself. It returns how
// many they were. Hours cannot pass for one running host alone, and nobody but a test
// wants them to, so this reaches for the host's token store from outside.
func (h *Host) Expire(t testing.TB, runtimeID string) int {
	t.Helper()
	field := reflect.ValueOf(h.Host).Elem().FieldByName("hub").Elem().FieldByName("store")
	store, ok := reflect.TypeAssert[*tokenstore.Store](reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem())
	if !ok {
		t.Fatalf("the host keeps its tokens in %s", field.Type())
	}
	id, ok := store.Lookup(runtimeID)
	if !ok {
		return 0
	}
	return store.Sweep(id.ExpiresAt())
}
