package semrange

import "strings"

// isPlain reports whether a constraint is one of those that nearly everybody writes: comparisons with plain versions, ranges and
// wildcards. It is a part of what the parser of constraints reads, and of what reads as it looks (see misread), told in one
// look at each byte: those two look at each dozens of times.
func isPlain(s string) bool {
	if from, to, ok := strings.Cut(s, " - "); ok {
		from, to = strings.Trim(from, blanks), strings.Trim(to, blanks)
		return isNumbers(from) && isNumbers(to) && !backward(from, to)
	}
	for group := range strings.SplitSeq(s, "||") {
		if !isPlainGroup(group) {
			return false
		}
	}
	return true
}

// isPlainGroup reads what has to hold together: terms with a comma or blanks between them.
func isPlainGroup(s string) bool {
	terms, bare := 0, false
	for s = strings.TrimLeft(s, blanks); s != ""; terms++ {
		operator, rest := cutOperator(s)
		rest = strings.TrimLeft(rest, blanks)
		wild, length := plainVersion(rest, operator != "")
		if length == 0 || wild && isWild(strings.TrimPrefix(rest, "v")) && endless(operator) {
			return false
		}
		bare = bare || operator == "" && !wild
		s = rest[length:]
		next := strings.TrimLeft(s, blanks)
		after, comma := strings.CutPrefix(next, ",")
		if next != "" && !comma && next == s || comma && strings.Trim(after, blanks) == "" {
			return false // nothing between two terms, or nothing behind a comma
		}
		s = strings.TrimLeft(after, blanks)
	}
	return terms > 0 && (terms == 1 || !bare)
}

const blanks = " \t"

// cutOperator cuts the operator off a term.
func cutOperator(s string) (operator, rest string) {
	for _, operator := range []string{"!=", "=>", ">=", "=<", "<=", "~>", "=", ">", "<", "~", "^"} {
		if rest, ok := strings.CutPrefix(s, operator); ok {
			return operator, rest
		}
	}
	return "", s
}

// Bounds of a plain version.
const (
	mostNumbers = 3
	mostDigits  = 15 // each of them fits, whatever they are
)

// plainVersion returns how long the version is that s begins with, and whether it ends in a wildcard: up to three numbers, or
// fewer and a wildcard, or three numbers and a pre-release that begins with a letter; "-0" behind any numbers of
// a term that has an operator. The length is 0 where it is something else.
func plainVersion(s string, operated bool) (wild bool, length int) {
	at := 0
	if strings.HasPrefix(s, "v") {
		at = 1
	}
	numbers := 0
	for {
		n := digits(s[at:])
		if n == 0 && at < len(s) && strings.IndexByte("xX*", s[at]) >= 0 {
			wild, n = true, 1
		}
		if n == 0 || n > mostDigits {
			return false, 0
		}
		at += n
		numbers++
		if wild || numbers == mostNumbers || at == len(s) || s[at] != '.' {
			break
		}
		at++
	}
	if pre, ok := strings.CutPrefix(s[at:], "-"); ok {
		n := plainPre(pre, operated, numbers == mostNumbers)
		if n == 0 || wild {
			return false, 0
		}
		at += 1 + n
	}
	return ended(s, wild, at)
}

// ended returns what plainVersion does, where the version ends there.
func ended(s string, wild bool, at int) (isWild bool, length int) {
	if at < len(s) && strings.IndexByte(" \t,<>=!~^", s[at]) < 0 {
		return false, 0
	}
	return wild, at
}

// plainPre returns how long the pre-release is that s begins with, 0 where it is not plain.
func plainPre(s string, operated, whole bool) int {
	end := strings.IndexAny(s, " \t,<>=!~^")
	if end < 0 {
		end = len(s)
	}
	pre := s[:end]
	if pre == "0" && operated {
		return end
	}
	if !whole || pre == "" || strings.IndexByte("vxX0123456789", pre[0]) >= 0 {
		return 0
	}
	for part := range strings.SplitSeq(pre, ".") {
		n := digits(part)
		if part == "" || n == len(part) && (n > mostDigits || n > 1 && part[0] == '0') || !isAlphanumeric(part) {
			return 0
		}
	}
	return end
}

// isNumbers reports whether s is a version of numbers alone.
func isNumbers(s string) bool {
	wild, n := plainVersion(s, false)
	return n > 0 && n == len(s) && !wild && strings.IndexByte(s, '-') < 0
}

func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}

func isAlphanumeric(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}
