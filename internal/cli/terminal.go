package cli

import (
	"os"
	"runtime"
	"strings"

	"golang.org/x/term"
	"rsc.io/qr"
)

// screen is what is known of the terminal on stderr. The zero screen is none.
type screen struct {
	terminal bool // a person sees this
	inPlace  bool // and a line can change in place
	colour   bool // and there may be bold and colours (https://no-color.org)
	blocks   bool // and there are half-block characters
	size     func() (columns, rows int)
}

func screenOf(f *os.File, env func(string) string) screen {
	terminal := isTerminal(f)
	s := drawnOn(terminal, terminal && understandsEscapes(f), runtime.GOOS, env)
	if !terminal {
		return s
	}
	s.size = func() (int, int) {
		columns, rows, err := term.GetSize(int(f.Fd()))
		if err != nil || columns < 20 {
			return 80, 24 // a serial line does not know
		}
		return columns, rows
	}
	return s
}

// drawnOn is what there may be on a screen.
func drawnOn(terminal, escapes bool, goos string, env func(string) string) screen {
	inPlace := terminal && escapes && env("TERM") != "dumb"
	return screen{
		terminal: terminal,
		inPlace:  inPlace,
		colour:   inPlace && env("NO_COLOR") == "",
		blocks:   inPlace && speaksUTF8(goos, env),
	}
}

// speaksUTF8 follows the order of locale(7).
func speaksUTF8(goos string, env func(string) string) bool {
	if goos == "windows" || goos == "darwin" {
		return true
	}
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToLower(env(name)); v != "" {
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return false
}

func (s screen) columns() int {
	if s.size == nil {
		return 0
	}
	columns, _ := s.size()
	return columns
}

func (s screen) bold(text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[1m" + text + "\x1b[0m"
}

// wrap breaks a text between words into lines of so many columns, 0 for any
// number. A word that is longer, such as a link, stays whole.
func wrap(text string, columns int) []string {
	if columns <= 0 || len(text) <= columns {
		return []string{text}
	}
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case len([]rune(line))+1+len([]rune(word)) <= columns:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	return append(lines, line)
}

// Around a QR code there must be nothing for four modules (ISO/IEC 18004);
// two are enough for today's readers, and fit on a screen.
const quiet = 2

// qrLines draws a link in half blocks, two modules to a character. With colours
// it is black on white on any terminal; without, it is drawn for a dark one,
// and readers that know inverted codes read it on a light one.
func qrLines(link string, colour bool) ([]string, error) {
	code, err := qr.Encode(link, qr.L)
	if err != nil {
		return nil, err
	}
	glyphs := map[[2]bool]string{{false, false}: " ", {true, false}: "▀", {false, true}: "▄", {true, true}: "█"}
	var lines []string
	for y := -quiet; y < code.Size+quiet; y += 2 {
		var b strings.Builder
		if colour {
			b.WriteString("\x1b[30;107m")
		}
		for x := -quiet; x < code.Size+quiet; x++ {
			top, bottom := code.Black(x, y), code.Black(x, y+1)
			if !colour {
				top, bottom = !top, !bottom
			}
			b.WriteString(glyphs[[2]bool{top, bottom}])
		}
		if colour {
			b.WriteString("\x1b[0m")
		}
		lines = append(lines, b.String())
	}
	return lines, nil
}

// qr gives the lines of a code for the link, none where it does not fit or is
// not wanted: auto is for a terminal of 60 columns or more that shows the code
// and the text below it at once, and not for CI.
func (s screen) qr(want, link string, ci bool) []string {
	if want == "never" || want != "always" && (!s.blocks || ci) {
		return nil
	}
	lines, err := qrLines(link, s.colour)
	if err != nil {
		return nil // the link is too long for any code, and is shown as text
	}
	if want != "always" {
		const below = 12 // lines of the prompt
		columns, rows := s.size()
		// Two modules make a line, one a column.
		if columns < 60 || columns < 2*len(lines) || rows < len(lines)+below {
			return nil
		}
	}
	return lines
}
