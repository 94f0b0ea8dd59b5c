package stack

import (
	"runtime"
	"strings"
)

// Below reports whether the caller was called, by however many others, by a function of whose name one of the texts is a
// part, as "pkg.(*T).method.func" is of the closures in a method.
func Below(functions ...string) bool {
	const deep = 64
	pcs := make([]uintptr, deep)
	n := runtime.Callers(2, pcs)
	for n == len(pcs) {
		pcs = make([]uintptr, 2*len(pcs))
		n = runtime.Callers(2, pcs)
	}
	for frames, more := runtime.CallersFrames(pcs[:n]), true; more; {
		var f runtime.Frame
		f, more = frames.Next()
		for _, function := range functions {
			if strings.Contains(f.Function, function) {
				return true
			}
		}
	}
	return false
}
