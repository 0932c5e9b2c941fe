package top

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// amount is a number in at most five characters: 999, 12.3k, 4.56M.
func amount(v float64) string {
	if v < 0 {
		v = 0
	}
	units := []string{"", "k", "M", "G", "T", "P", "E"}
	i := 0
	for v >= 999.5 && i < len(units)-1 {
		v /= 1000
		i++
	}
	switch {
	case i == 0 && v == float64(int64(v)):
		return strconv.FormatInt(int64(v), 10)
	case v < 9.995:
		return strconv.FormatFloat(v, 'f', 2, 64) + units[i]
	case v < 99.95:
		return strconv.FormatFloat(v, 'f', 1, 64) + units[i]
	}
	return strconv.FormatFloat(v, 'f', 0, 64) + units[i]
}

// grouped is a whole number with its thousands apart.
func grouped(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// span is a duration in its two greatest units: 4m05s, 2h03m, 5d04h; tenths of a second under ten.
func span(d time.Duration) string {
	s := int64(d / time.Second)
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 24*3600:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	}
	return fmt.Sprintf("%dd%02dh", s/86400, s/3600%24)
}

// printable keeps what a policy's names hold from steering the terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}
