// The command empty is what a Go process costs at least.
package main

func main() {}
