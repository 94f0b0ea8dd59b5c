//go:build unix

package demo

import (
	"maps"
	"slices"
	"time"

	"github.com/masegraye/connect-plugin-go/examples/urlshortener/internal/stack"
)

// keepEvery is how often the demo looks whether a process is gone.
const keepEvery = 2 * time.Second

// keeper starts plugins again that ended by themselves, as a service manager would: who is revoked ends,
// and is to be there again when somebody readmits it.
type keeper struct {
	stack *stack.Stack
	sayf  func(format string, args ...any)
	away  map[string]string // what those said last that are not there, by name
}

// look says what ended and came back, and starts again what is not there.
func (k *keeper) look() {
	ended := k.stack.TakeEnded()

	for _, name := range slices.Sorted(maps.Keys(k.away)) {
		if k.stack.Serves(name) {
			delete(k.away, name)
			k.sayf("%s is there again", name)
		}
	}

	for _, e := range ended {
		if e.Name == "connectpluginctl" {
			k.sayf("the page ended (%s); connectpluginctl page starts another one", e.Said)

			continue
		}

		if said, known := k.away[e.Name]; !known || said != e.Said {
			k.sayf("%s ended by itself (%s); it is started again every %v until the host takes it", e.Name, e.Said, keepEvery)
		}

		k.away[e.Name] = e.Said
		if err := k.stack.StartAgain(e.Name); err != nil {
			k.sayf("%s: %v", e.Name, err)
		}
	}
}

// end forgets what ended by itself, which is no fault of the demo.
func (k *keeper) end() { k.stack.TakeEnded() }
