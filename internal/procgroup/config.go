package procgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ErrConfig is wrapped by every error about a [Config].
var ErrConfig = errors.New("invalid process configuration")

// ErrUnsupported says that this system cannot do what a [Config] asks for.
var ErrUnsupported = errors.New("not supported on this system")

// Config says how a process is started. It is not changed.
type Config struct {
	// Path is what is executed, an absolute path. It is ignored where Executable is set,
	// except that the process is told it as its name.
	Path string
	// Executable, where it is set, is executed in place of Path: whatever happens to the
	// names in the file system, it is this file. Only Linux can do that.
	Executable *os.File
	// Args follow the name.
	Args []string
	// Env is the whole environment, "KEY=value" each.
	Env []string
	// Dir is the working directory. Empty means that of this process.
	Dir string
	// Credential is the user that the process runs as. Nil means that of this process.
	Credential *Credential
	// Rlimits are set before the first instruction of the program.
	Rlimits []Rlimit
	// Cgroup is a directory of a control group, of version 2, in which this process may make
	// others. The process gets one of its own there, with which all ends that it started, also
	// what left its group. Empty means none. Only Linux has them.
	Cgroup string
	// Files are inherited as descriptors 3, 4 and so on. They stay open here.
	Files []*os.File
	// Output takes what the process prints, line by line. It is called by one goroutine for
	// each stream and must not block. Nil drops the lines; the last ones are kept anyway.
	Output func(Line)
}

// Credential is a user with its groups.
type Credential struct {
	UID, GID uint32
	Groups   []uint32
}

// Rlimit is a resource limit, see setrlimit(2).
type Rlimit struct {
	Resource   int
	Soft, Hard uint64
}

func (c *Config) validate() error {
	switch {
	case !filepath.IsAbs(c.Path):
		return fmt.Errorf("%w: Path: %q is not absolute", ErrConfig, c.Path)
	case c.Dir != "" && !filepath.IsAbs(c.Dir):
		return fmt.Errorf("%w: Dir: %q is not absolute", ErrConfig, c.Dir)
	case c.Cgroup != "" && (!filepath.IsAbs(c.Cgroup) || strings.ContainsAny(c.Cgroup, " \t\r\n")):
		return fmt.Errorf("%w: Cgroup: %q is no absolute path without white space", ErrConfig, c.Cgroup)
	}
	for field, texts := range map[string][]string{"Path, Dir": {c.Path, c.Dir}, "Args": c.Args, "Env": c.Env} {
		for i, text := range texts {
			if strings.IndexByte(text, 0) >= 0 { // never the text: it may be a secret
				return fmt.Errorf("%w: %s: [%d] has a zero byte", ErrConfig, field, i)
			}
		}
	}
	for _, r := range c.Rlimits {
		if r.Soft > r.Hard {
			return fmt.Errorf("%w: Rlimits: the soft limit %d is above the hard one, %d", ErrConfig, r.Soft, r.Hard)
		}
	}
	return nil
}
