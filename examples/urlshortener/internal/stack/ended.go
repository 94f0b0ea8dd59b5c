//go:build unix

package stack

import (
	"strings"
)

// Ended is a process that ended though nobody stopped it.
type Ended struct {
	// Name is the program's, and Said the last line that it wrote.
	Name, Said string
}

// TakeEnded returns the processes, but for the host, that ended though nobody stopped them, and forgets them.
func (s *Stack) TakeEnded() []Ended {
	var ended []Ended

	for name, p := range s.Processes {
		if name == "host" {
			continue
		}

		select {
		case <-p.Done():
			ended = append(ended, Ended{name, lastLine(p.Output())})
			delete(s.Processes, name)
		default:
		}
	}

	return ended
}

// lastLine is what a program said last, which of one that fails is why.
func lastLine(text string) string {
	text = strings.TrimRight(text, "\n")

	return text[strings.LastIndexByte(text, '\n')+1:]
}

// StartAgain starts a plugin again and does not wait for it.
func (s *Stack) StartAgain(name string) error {
	_, err := s.launch(name, s.pluginArgs(name)...)

	return err
}

// Serves reports whether a plugin runs that has registered its service.
func (s *Stack) Serves(name string) bool {
	p := s.Processes[name]

	return p != nil && strings.Contains(p.Output(), registered)
}
