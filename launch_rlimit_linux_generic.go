//go:build linux && !mips && !mipsle && !mips64 && !mips64le

package connectplugin

const (
	rlimitProcesses    = 6
	rlimitLockedMemory = 8
)
