package connectplugin

import "syscall"

// rlimitNumber returns the number of a limit on this system. Package syscall does not name
// all of them.
func rlimitNumber(r Rlimit) (int, bool) {
	n, ok := map[Rlimit]int{
		RlimitCPU: syscall.RLIMIT_CPU, RlimitFileSize: syscall.RLIMIT_FSIZE, RlimitData: syscall.RLIMIT_DATA,
		RlimitStack: syscall.RLIMIT_STACK, RlimitCore: syscall.RLIMIT_CORE, RlimitOpenFiles: syscall.RLIMIT_NOFILE,
		RlimitAddressSpace: syscall.RLIMIT_AS, RlimitProcesses: rlimitProcesses, RlimitLockedMemory: rlimitLockedMemory,
	}[r]
	return n, ok
}
