package cli

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A real terminal, of which nobody is at the other end.
func TestScreenOfATerminal(t *testing.T) {
	f, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	s := screenOf(f, envOf("TERM=xterm", "LANG=C.UTF-8"))
	if !s.terminal || !s.inPlace || !s.colour || !s.blocks {
		t.Errorf("%+v", s)
	}
	if s := screenOf(f, envOf("TERM=dumb")); !s.terminal || s.inPlace {
		t.Errorf("TERM=dumb: %+v", s)
	}
	for _, tt := range []struct{ is, wants unix.Winsize }{
		{unix.Winsize{}, unix.Winsize{Col: 80, Row: 24}}, // a serial line
		{unix.Winsize{Col: 132, Row: 43}, unix.Winsize{Col: 132, Row: 43}},
	} {
		if err := unix.IoctlSetWinsize(int(f.Fd()), unix.TIOCSWINSZ, &tt.is); err != nil {
			t.Fatal(err)
		}
		if columns, rows := s.size(); columns != int(tt.wants.Col) || rows != int(tt.wants.Row) || s.columns() != columns {
			t.Errorf("%d columns, %d lines, want %+v", columns, rows, tt.wants)
		}
	}
}
