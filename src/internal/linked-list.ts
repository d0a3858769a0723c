/** An item that can stand in one LinkedList at a time. */
export interface Linked<T> {
  next: T | undefined;
  previous: T | undefined;
}

/** A doubly linked list through its own items: append and remove in O(1), without allocating. */
export class LinkedList<T extends Linked<T>> {
  head: T | undefined;
  tail: T | undefined;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  append(item: T): void {
    item.previous = this.tail;
    item.next = undefined;
    if (this.tail === undefined) this.head = item;
    else this.tail.next = item;
    this.tail = item;
    this.#length++;
  }

  /** Takes out an item, which must stand in this list. */
  remove(item: T): void {
    if (item.previous === undefined) this.head = item.next;
    else item.previous.next = item.next;
    if (item.next === undefined) this.tail = item.previous;
    else item.next.previous = item.previous;
    item.next = undefined;
    item.previous = undefined;
    this.#length--;
  }

  shift(): T | undefined {
    const item = this.head;
    if (item !== undefined) this.remove(item);
    return item;
  }
}
