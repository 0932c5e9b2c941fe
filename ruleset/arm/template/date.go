package template

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

var dateFunctions = map[string]function{
	"utcNow": {least: 0, most: 1, call: func(f frame, args []any) (any, error) {
		now := f.options.Now
		if now.IsZero() {
			now = time.Unix(0, 0)
		}
		layout := "yyyyMMddTHHmmssZ"
		if len(args) == 1 {
			var err error
			if layout, err = argString(args, 0); err != nil {
				return nil, err
			}
		}
		return formatTime(now.UTC(), layout)
	}},
	"dateTimeAdd": {least: 2, most: 3, call: func(_ frame, args []any) (any, error) {
		s, err := argStrings(args)
		if err != nil {
			return nil, err
		}
		t, err := parseTime(s[0])
		if err != nil {
			return nil, err
		}
		if t, err = addDuration(t, s[1]); err != nil {
			return nil, err
		}
		layout := "yyyy-MM-ddTHH:mm:ssZ"
		if len(s) == 3 {
			layout = s[2]
		}
		return formatTime(t, layout)
	}},
	"dateTimeFromEpoch": {least: 1, most: 1, call: func(_ frame, args []any) (any, error) {
		n, err := argInt(args, 0)
		if err != nil {
			return nil, err
		}
		if n < -62_135_596_800 || n > 253_402_300_799 {
			return nil, errors.New("the time is outside the years 1 to 9999")
		}
		return time.Unix(n, 0).UTC().Format("2006-01-02T15:04:05Z"), nil
	}},
	"dateTimeToEpoch": {least: 1, most: 1, call: func(_ frame, args []any) (any, error) {
		s, err := argString(args, 0)
		if err != nil {
			return nil, err
		}
		t, err := parseTime(s)
		if err != nil {
			return nil, err
		}
		return number(t.Unix()), nil
	}},
}

var timeLayouts = []string{
	time.RFC3339Nano, "20060102T150405Z", "2006-01-02 15:04:05Z", "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02",
	"1/2/2006 3:04:05 PM", "1/2/2006",
}

func parseTime(s string) (time.Time, error) {
	for _, layout := range timeLayouts {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time such as 2026-01-31T10:00:00Z", clip(s))
}

// addDuration adds a duration of ISO 8601, such as P1Y2M3DT4H5M6S or -PT1H.
func addDuration(t time.Time, s string) (time.Time, error) {
	bad := fmt.Errorf("%q is no duration such as P1D or -PT1H", clip(s))
	rest, negative := strings.CutPrefix(s, "-")
	rest, ok := strings.CutPrefix(rest, "P")
	if !ok || rest == "" || len(rest) > 64 {
		return t, bad
	}
	sign := 1
	if negative {
		sign = -1
	}
	clock := false
	for rest != "" {
		if rest[0] == 'T' && !clock && len(rest) > 1 {
			clock, rest = true, rest[1:]
			continue
		}
		i := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
		if i <= 0 {
			return t, bad
		}
		n, err := strconv.Atoi(rest[:i])
		if err != nil || n > 1_000_000 {
			return t, bad
		}
		n *= sign
		switch unit := rest[i]; {
		case unit == 'Y' && !clock:
			t = t.AddDate(n, 0, 0)
		case unit == 'M' && !clock:
			t = t.AddDate(0, n, 0)
		case unit == 'W' && !clock:
			t = t.AddDate(0, 0, 7*n)
		case unit == 'D' && !clock:
			t = t.AddDate(0, 0, n)
		case unit == 'H' && clock:
			t = t.Add(time.Duration(n) * time.Hour)
		case unit == 'M' && clock:
			t = t.Add(time.Duration(n) * time.Minute)
		case unit == 'S' && clock:
			t = t.Add(time.Duration(n) * time.Second)
		default:
			return t, bad
		}
		rest = rest[i+1:]
	}
	if y := t.Year(); y < 1 || y > 9999 {
		return t, errors.New("the time is outside the years 1 to 9999")
	}
	return t, nil
}

// standardFormats are .NET's formats of one letter, in its invariant culture.
var standardFormats = map[string]string{
	"d": "MM/dd/yyyy", "D": "dddd, dd MMMM yyyy", "t": "HH:mm", "T": "HH:mm:ss", "s": "yyyy-MM-ddTHH:mm:ss",
	"u": "yyyy-MM-dd HH:mm:ssZ", "o": "yyyy-MM-ddTHH:mm:ss.fffffffZ", "O": "yyyy-MM-ddTHH:mm:ss.fffffffZ",
	"R": "ddd, dd MMM yyyy HH:mm:ss 'GMT'", "r": "ddd, dd MMM yyyy HH:mm:ss 'GMT'",
	"g": "MM/dd/yyyy HH:mm", "G": "MM/dd/yyyy HH:mm:ss", "f": "dddd, dd MMMM yyyy HH:mm", "F": "dddd, dd MMMM yyyy HH:mm:ss",
	"y": "yyyy MMMM", "m": "MMMM dd", "M": "MMMM dd",
}

// formatTime writes a time in one of .NET's formats.
func formatTime(t time.Time, layout string) (string, error) {
	if len(layout) > 256 {
		return "", errors.New("the format is longer than 256 characters, the cap")
	}
	if standard, ok := standardFormats[layout]; ok {
		layout = standard
	}
	layout = strings.TrimPrefix(layout, "%")
	var b strings.Builder
	for i := 0; i < len(layout); {
		c := layout[i]
		n := 1
		for i+n < len(layout) && layout[i+n] == c {
			n++
		}
		switch {
		case c == '\'' || c == '"':
			end := strings.IndexByte(layout[i+1:], c)
			if end < 0 {
				return "", fmt.Errorf("the format %q has an open quote", clip(layout))
			}
			b.WriteString(layout[i+1 : i+1+end])
			n = end + 2
		case c == '\\' && i+1 < len(layout):
			b.WriteByte(layout[i+1])
			n = 2
		default:
			b.WriteString(timePart(t, c, n))
		}
		i += n
	}
	return b.String(), nil
}

// timePart writes the part of a time that n equal letters of a format stand for.
func timePart(t time.Time, c byte, n int) string {
	two := func(v int) string {
		if n == 1 {
			return strconv.Itoa(v)
		}
		return fmt.Sprintf("%02d", v)
	}
	switch c {
	case 'y':
		if n < 3 {
			return two(t.Year() % 100)
		}
		return fmt.Sprintf("%0*d", min(n, 8), t.Year())
	case 'M':
		switch {
		case n == 3:
			return t.Format("Jan")
		case n > 3:
			return t.Format("January")
		}
		return two(int(t.Month()))
	case 'd':
		switch {
		case n == 3:
			return t.Format("Mon")
		case n > 3:
			return t.Format("Monday")
		}
		return two(t.Day())
	case 'H':
		return two(t.Hour())
	case 'h':
		return two((t.Hour()+11)%12 + 1)
	case 'm':
		return two(t.Minute())
	case 's':
		return two(t.Second())
	case 'f', 'F':
		digits := fmt.Sprintf("%09d", t.Nanosecond())[:min(n, 7)]
		if c == 'F' {
			digits = strings.TrimRight(digits, "0")
		}
		return digits
	case 't':
		return t.Format("PM")[:min(n, 2)]
	case 'z':
		return []string{"+0", "+00", "+00:00"}[min(n, 3)-1]
	}
	return strings.Repeat(string(rune(c)), n)
}
