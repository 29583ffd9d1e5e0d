// Package replace puts a new file in the place of an old one, such that nobody
// ever sees a half of it: for the cache, and for kubeconfigs.
package replace
