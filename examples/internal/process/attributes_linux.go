package process

import "syscall"

// attributes put a process into a group of its own, and make the kernel kill it
// when its parent dies, however that dies.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
