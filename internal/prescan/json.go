package prescan

import "fmt"

// JSON looks at a message in JSON, and refuses one with more than so many values. The error
// is fit for who sent it.
func JSON(data []byte, most int) error {
	values, quoted, escaped := 0, false, false
	for _, c := range data {
		switch {
		case escaped:
			escaped = false
		case c == '"':
			quoted = !quoted
		case quoted:
			escaped = c == '\\'
		case c == ',' || c == '{' || c == '[':
			values++
		}
	}
	if values > most {
		return fmt.Errorf("the message has more than %d values", most)
	}
	return nil
}
