"""Which functions of a call trace are messengers, and so are not to blame.

Patterns of names, `*` for any rest. Leading underscores do not count: `kmalloc*` covers `__kmalloc_noprof`.
"""

from __future__ import annotations

import re


def _names(patterns: str) -> re.Pattern[str]:
    lines = (line.partition("#")[0] for line in patterns.splitlines())
    words = " ".join(lines).split()
    return re.compile("_*(?:" + "|".join(re.escape(word).replace(r"\*", r"\w*") for word in words) + ")$")


#: Functions that carry the message. Whoever called them is the one to talk to.
INFRASTRUCTURE = _names("""
    # reporting, and the way into an exception
    dump_stack* show_stack* show_regs* show_trace* print_report print_*_report print_address_* print_*_error
    report_bug handle_bug warn warn_* exc_* asm_exc_* do_error_trap do_trap* die die_* oops_* panic vpanic
    nmi_panic* page_fault_oops kernelmode_fixup_or_oops bad_area* no_context do_user_addr_fault do_kern_addr_fault
    handle_page_fault do_page_fault page_fault async_page_fault do_async_page_fault invalid_op do_invalid_op
    general_protection do_general_protection divide_error error_entry check_panic_on_warn fixup_bug* printk*
    vprintk* brk_handler call_break_hook bug_handler do_debug_exception el1_* el1h_* do_mem_abort
    do_translation_fault do_kernel_fault die_kernel_fault dump_backtrace dump_page walk_stackframe do_trap_break
    handle_exception
    # sanitizers
    kasan_* asan_* hwasan_* kmsan_* msan_* kcsan_* tsan_* ubsan_* kfence_* check_memory_region* check_region_inline
    memory_is_* end_report start_report handle_overflow object_err check_object check_bytes_and_report slab_err
    slab_bug slab_fix validate_slab
    # lockdep and locks
    lockdep_* lock_acquire* lock_release* lock_acquired lock_contended lock_is_held* validate_chain mark_lock*
    mark_held_locks mark_usage check_noncircular check_prev* check_deadlock check_irq_usage check_usage* check_path
    check_wait_context check_chain_key check_unlock print_circular_bug* print_deadlock_bug print_usage_bug*
    print_irq_inversion_bug* print_bad_irq_dependency print_unlock_imbalance_bug* register_lock_class
    assign_lock_key might_sleep* might_resched might_fault* schedule_bug rcu_lockdep* debug_check_no_*
    debug_locks_off raw_spin_* raw_read_* raw_write_* do_raw_* spin_bug spin_dump rwlock_bug debug_spin_* queued_*
    native_queued_* pv_queued_* mutex_lock* mutex_unlock* mutex_trylock* rt_mutex_* ww_mutex_* down_read*
    down_write* up_read* up_write* spin_lock* spin_unlock* percpu_down_* percpu_up_* check_preemption_disabled
    debug_smp_processor_id this_cpu_preempt_check
    # allocators, and the last reference to a page
    kmalloc* do_kmalloc* kzalloc* kcalloc* krealloc* kvmalloc* kmem_cache_* slab_* kfree* kvfree* vfree* vunmap
    vmalloc* alloc_pages* alloc_frozen_pages* free_pages* free_page free_frozen_* free_unref_* free_one_page
    free_tail_* free_large_* bad_page* free_page_is_bad* check_new_page* check_free_page* prep_new_page
    prep_compound* get_page_from_freelist rmqueue* folio_alloc* vma_alloc_folio* put_page* folio_put* folios_put*
    release_pages free_swap_cache print_bad_pte vm_normal_page* vm_normal_folio*
    # memory, strings, user copies, bit operations
    memcpy* memset* memmove* memcmp* memchr* strcpy* strncpy* strscpy* strlcpy* strlen* strnlen* strcmp* strncmp*
    strcat* strncat* strlcat* strchr* strnchr* strstr* strcasecmp* sized_str* rep_movs* rep_stos* copy_to_user*
    copy_from_user* copy_user_* raw_copy_* arch_copy_* clear_page* copy_page* clear_user* atomic_* raw_atomic*
    arch_atomic* test_bit* set_bit* clear_bit* change_bit* test_and_* arch_test_* arch_set_bit* arch_clear_bit*
    instrument_* check_object_size check_heap_object usercopy_abort fortify_*
    # lists, references, checkers
    list_add* list_del* list_move* hlist_add* hlist_del* refcount_* kref_* debug_object* debug_print_object
    debug_check_no_obj_freed page_table_check_*
""")

#: Where a task that does not get on waits: in the scheduler, for a lock, for a page, for another CPU.
WAITING = _names("""
    schedule schedule_* io_schedule* context_switch preempt_schedule* switch_to* cond_resched* wait_on_* wait_for_*
    wait_event* wait_woken do_wait_for_common out_of_line_wait_* bit_wait* prepare_to_wait* folio_wait_* folio_lock*
    folio_trylock rwsem_*
    percpu_rwsem_* down down_* mutex_* synchronize_* rcu_barrier* wait_rcu_gp flush_work* flush_workqueue
    cancel_work* kthread_stop kthread_park smp_call_* on_each_cpu* csd_lock* flush_tlb_* native_flush_tlb_* msleep*
    usleep_* cpu_relax rep_nop native_safe_halt native_halt safe_halt arch_safe_halt pv_native_safe_halt
    default_idle* arch_cpu_idle default_idle_call cpuidle_* do_idle cpu_startup_entry mwait_* acpi_idle_*
    acpi_safe_halt pv_* kvm_wait virt_spin_lock arch_spin_lock
    # the timer tick, and the NMI that looked
    rcu_sched_clock_irq rcu_check_callbacks rcu_dump_cpu_stacks rcu_pending print_cpu_stall print_other_cpu_stall
    check_cpu_stall update_process_times tick_* hrtimer_* sysvec_* asm_sysvec_* apic_timer_interrupt
    smp_apic_timer_interrupt local_apic_timer_interrupt irq_exit* watchdog_* sched_tick scheduler_tick do_softirq*
    handle_softirqs nmi_* arch_trigger_* trigger_* default_do_nmi do_nmi end_repeat_nmi perf_event_* intel_pmu_*
    asm_common_interrupt common_interrupt
    # a stall of the rig's own module
    rig_stall_* kprobe_int3_handler aggr_pre_handler opt_pre_handler optimized_callback do_int3
""")
