package cli

import (
	"os"

	"golang.org/x/sys/windows"
)

// understandsEscapes switches escape sequences on, which a console leaves off
// until it is asked.
func understandsEscapes(f *os.File) bool {
	var mode uint32
	handle := windows.Handle(f.Fd())
	if windows.GetConsoleMode(handle, &mode) != nil {
		return false
	}
	return windows.SetConsoleMode(handle, mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) == nil
}
