package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"os"
	"time"
)

// Behind the notes the lock file has places in which it is noted which token
// which client process was given last. A place is found by the client's hash;
// two clients that share one forget each other, and nothing worse.
const (
	placesStart = 16 << 10
	placesCount = 64
	placeSize   = 16 + 8 + 8
)

// place is the hash of a client, the token by the time of its issue, and when
// the client was last told that it got a token again. Times are of
// time.Time.UnixNano.
type place struct {
	client        [16]byte
	issued, again int64
}

// HandOut notes that a client process gets the session's token of this time of
// issue. It tells whether the client got the very same one before, but no more
// often than every so often: whoever has a good token in memory and asks for one
// all the same has probably seen it refused.
//
// It takes no lock, syncs nothing, and does nothing where the session has no
// lock file. What cannot be noted is forgotten.
func (d *Disk) HandOut(id, client string, issued time.Time, often time.Duration) (again bool) {
	f, err := openNotes(d.lockPath(id), os.O_RDWR)
	if err != nil {
		return false
	}
	defer f.Close()
	sum := sha256.Sum256([]byte(client))
	at := int64(placesStart + placeSize*(int(sum[16])%placesCount))
	var b [placeSize]byte
	var p place
	if n, _ := f.ReadAt(b[:], at); n == placeSize { // short: nobody was noted here yet
		copy(p.client[:], b[:16])
		p.issued, p.again = int64(binary.LittleEndian.Uint64(b[16:])), int64(binary.LittleEndian.Uint64(b[24:]))
	}
	now := time.Now()
	switch {
	case !bytes.Equal(p.client[:], sum[:16]):
		p = place{issued: issued.UnixNano()}
		copy(p.client[:], sum[:16])
	case p.issued != issued.UnixNano():
		p.issued = issued.UnixNano()
	case now.Sub(time.Unix(0, p.again)).Abs() < often:
		return false
	default:
		p.again, again = now.UnixNano(), true
	}
	copy(b[:16], p.client[:])
	binary.LittleEndian.PutUint64(b[16:], uint64(p.issued))
	binary.LittleEndian.PutUint64(b[24:], uint64(p.again))
	if _, err := f.WriteAt(b[:], at); err != nil {
		return false // or it would be again at each call
	}
	return again
}
