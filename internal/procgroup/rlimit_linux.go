package procgroup

import "syscall"

// resources are the numbers of the limits on this system, by the names that ulimit and
// limits.conf give them. Package syscall does not name all of them.
var resources = map[string]int{
	"cpu": syscall.RLIMIT_CPU, "fsize": syscall.RLIMIT_FSIZE, "data": syscall.RLIMIT_DATA,
	"stack": syscall.RLIMIT_STACK, "core": syscall.RLIMIT_CORE, "nofile": syscall.RLIMIT_NOFILE,
	"as": syscall.RLIMIT_AS, "nproc": rlimitProcesses, "memlock": rlimitLockedMemory,
}

// Resource returns the number of a resource limit, by the name that ulimit and
// limits.conf give it. It reports false where this system does not know it.
func Resource(name string) (int, bool) {
	n, ok := resources[name]
	return n, ok
}
